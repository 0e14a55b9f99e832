"""x"""
from fastapi import APIRouter
def download_routes(ctx):
    return APIRouter()
