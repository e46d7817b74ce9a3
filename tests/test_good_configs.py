"""Label Studio's server and its SDK accept whatever we render."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lsplugin.render import render
from tests.test_render import GOOD, specs

if TYPE_CHECKING:
    from tests.helpers import Person


def test_the_sdk_accepts_every_pair_of_options() -> None:
    from label_studio_sdk.label_interface.interface import LabelInterface

    for spec in specs():
        LabelInterface(render(spec)).validate()


@pytest.mark.server
def test_the_server_accepts_every_template_theme_and_option(admin: Person) -> None:
    configs = [path.read_text() for path in sorted(GOOD.glob("*.xml"))]
    configs += [render(spec) for spec in specs()]
    assert len(configs) > 250
    for config in configs:
        assert admin.http.post("/api/projects/validate/", json={"label_config": config}).status_code == 204, config
    refused = admin.http.post(
        "/api/projects/validate/", json={"label_config": render().replace("answer1,answer2", "answer1, answer2")}
    )
    assert refused.status_code == 400
