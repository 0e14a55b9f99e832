"""Members of a project on the Project tab."""

from __future__ import annotations

import pytest

from feedback_app.handlers import annotate, data, membership, project
from storage.enums import Role
from storage.errors import Invalid, NotAllowed, NotFound


def test_closing_a_project_hides_it_from_all_but_members_and_admins(house):
    name = house.project(items=1)
    olga, other, admin = house.person(Role.OPERATOR), house.person(Role.OPERATOR), house.person(Role.ADMIN)
    inside, outside = house.person(), house.person()
    view = membership.save_members(house.ctx, olga, name, True, [inside])
    assert (view.members_only, view.members) == (True, sorted([inside, olga])), "who closes it stays in it"
    for person in (olga, admin):
        assert name in project.see_project(house.ctx, person, name).projects
    assert annotate.open_page(house.ctx, inside, name).project == name
    for person in (outside, other):
        assert name not in annotate.open_page(house.ctx, person, name).projects
    assert project.see_project(house.ctx, other, name).project != name
    assert data.see_data(house.ctx, other, name).project is None
    assert membership.see_members(house.ctx, other, name).project is None
    for act in (
        lambda: membership.save_members(house.ctx, other, name, False, []),
        lambda: data.add_prompts(house.ctx, other, name, "hello"),
        lambda: data.make_download(house.ctx, other, name, "preference", "jsonl"),
    ):
        with pytest.raises(NotFound) as told:
            act()
        assert name not in str(told.value).partition("for you")[2]


def test_opening_it_again_lets_everybody_in_and_keeps_the_list(house):
    name, olga, ann = house.project(), house.person(Role.OPERATOR), house.person()
    membership.save_members(house.ctx, olga, name, True, [ann])
    view = membership.save_members(house.ctx, olga, name, False, [ann])
    assert (view.members_only, view.members) == (False, [ann])
    assert name in annotate.open_page(house.ctx, house.person(), name).projects


def test_nobody_shuts_themselves_out_but_an_admin_need_not_be_a_member(house):
    name, olga, admin = house.project(), house.person(Role.OPERATOR), house.person(Role.ADMIN)
    membership.save_members(house.ctx, olga, name, True, [])
    with pytest.raises(NotAllowed, match="shut yourself out"):
        membership.save_members(house.ctx, olga, name, True, [])
    assert membership.save_members(house.ctx, admin, name, True, []).members == []


@pytest.mark.parametrize(
    ("only", "wanted"), [("yes", []), (True, "olga"), (True, [1]), (True, None), (None, []), (True, ["x" * 300])]
)
def test_bad_values_change_nothing(house, only, wanted):
    name, admin, ann = house.project(), house.person(Role.ADMIN), house.person()
    membership.save_members(house.ctx, admin, name, True, [ann])
    with pytest.raises(Invalid):
        membership.save_members(house.ctx, admin, name, only, wanted)
    assert membership.see_members(house.ctx, admin, name).members == [ann]


def test_an_unknown_name_changes_nothing(house):
    name, admin, ann = house.project(), house.person(Role.ADMIN), house.person()
    with pytest.raises(NotFound, match="no user 'nobody'"):
        membership.save_members(house.ctx, admin, name, True, [ann, "nobody"])
    view = membership.see_members(house.ctx, admin, name)
    assert (view.members_only, view.members) == (False, [])
    assert ann in view.people
