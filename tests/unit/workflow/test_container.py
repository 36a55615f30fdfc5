"""Image names in Snakemake's metadata hold neither a password nor a local folder."""

from __future__ import annotations

import pytest

from robustviews.workflow import container


@pytest.mark.parametrize(
    "image", ["docker://me:secret@host.example/lab/image:1", "me:secret@host.example/image"]
)
def test_an_image_with_a_password_is_refused_without_repeating_it(image):
    with pytest.raises(container.ImageError) as refused:
        container.named(image)
    assert "secret" not in str(refused.value)
    assert "host.example" in str(refused.value)
    assert "APPTAINER_DOCKER_USERNAME and APPTAINER_DOCKER_PASSWORD" in str(refused.value)


@pytest.mark.parametrize(
    "image",
    ["docker://robustviews:latest", "docker://host.example/lab/image@sha256:" + 64 * "5"],
)
def test_an_image_of_a_registry_is_named_as_it_is(image):
    assert container.named(image) == image


def test_a_file_is_named_relative_to_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert container.named(str(tmp_path / "image.sif")) == "image.sif"
    (tmp_path / "link.sif").symlink_to("/somewhere/else.sif")
    assert container.named(str(tmp_path / "link.sif")) == "link.sif"


def test_for_a_file_outside_the_project_the_message_suggests_a_link(tmp_path):
    with pytest.raises(container.ImageError, match=r"^image=other\.sif: .*ln -s"):
        container.named(str(tmp_path / "other.sif"))
