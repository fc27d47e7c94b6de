"""Small models and pools, made from configs: no test needs a download."""

import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import zipfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi, RepoUrl
from huggingface_hub.utils import filter_repo_objects
from tiny import collate, make_model, make_pool
from transformers import BertForSequenceClassification
from wheels import build_wheel


torch.set_num_threads(1)  # models this small are slower on several, and a busy machine makes it worse


@pytest.fixture
def pool() -> Dataset:
    return make_pool()


@pytest.fixture
def model() -> BertForSequenceClassification:
    return make_model()


@pytest.fixture(name="make_pool")
def _make_pool() -> Callable[..., Dataset]:
    return make_pool


@pytest.fixture(name="make_model")
def _make_model() -> Callable[..., BertForSequenceClassification]:
    return make_model


@pytest.fixture(name="collate")
def _collate() -> Callable[..., dict[str, torch.Tensor]]:
    return collate


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, bytes]]]:
    """The hub's end of the network: of each upload the repository, and the files by name."""
    uploads: list[tuple[str, dict[str, bytes]]] = []

    def create_repo(self: HfApi, repo_id: str, **options: Any) -> RepoUrl:
        return RepoUrl(f"https://huggingface.co/{repo_id if '/' in repo_id else f'me/{repo_id}'}")

    def upload_folder(
        self: HfApi,
        *,
        repo_id: str,
        folder_path: str,
        allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None,
        **options: Any,
    ) -> Future[None]:
        files = [str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()]
        chosen = filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        uploads.append((repo_id, {name: (Path(folder_path) / name).read_bytes() for name in chosen}))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    for replacement in (create_repo, upload_folder):
        monkeypatch.setattr(HfApi, replacement.__name__, replacement)
    return uploads


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree."""
    return build_wheel(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
