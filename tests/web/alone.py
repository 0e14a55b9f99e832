"""An application for one file alone: pages that list everybody are as short as its own tests make them.

Who looks at whole pages, each in many states, would spend most of the time on the people of other tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.conftest import House, at_home, housed


@pytest.fixture(scope="module")
def house(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with housed(sqlite_template, tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(scope="module")
def address(house: House) -> Iterator[str]:
    with at_home(house) as url:
        yield url
