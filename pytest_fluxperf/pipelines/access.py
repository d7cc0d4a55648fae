"""May a model be loaded? Found before anything is: folders by their files' headers, hub models by asking the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pytest_fluxperf.errors import FluxPerfError, one_line
from pytest_fluxperf.pipelines.integrity import check_model_folder
from pytest_fluxperf.pipelines.models import ModelInfo


class Access(NamedTuple):
    """What was found, told in one line with the remedy."""

    state: Literal["here", "allowed", "refused", "unknown"]
    """Whole on this machine; to be downloaded; certain not to load; or nobody answers, so that only loading tells."""
    text: str


def access(info: ModelInfo) -> Access:
    """Whether the model is here, or may be fetched. Downloads nothing, and asks the hub only for what is not here."""
    if info.random:
        return Access("here", f"{info.name}: random weights, built on the device")
    if not Path(info.source).is_dir():
        return _hub(info.source)
    try:
        check_model_folder(Path(info.source))
    except FluxPerfError as error:
        return Access("refused", str(error))
    return Access("here", f"{info.name}: whole, in {info.source}")


def require(info: ModelInfo) -> None:
    """Raise :class:`FluxPerfError` for a model that is certain not to load."""
    found = access(info)
    if found.state == "refused":
        raise FluxPerfError(f"model {info.name!r}: {found.text}")


def how_to_fetch(repository: str) -> str:
    """The remedy for weights that are not on this machine, where nobody knows whether the hub would give them."""
    return (
        "give a folder with --fluxperf-model=PATH, or fetch it: `hf auth login` if it is gated or private, then "
        f"`hf download {repository}`"
    )


def gated(repository: str) -> str:
    """What to say of weights whose licence has to be accepted."""
    return (
        f"{repository} is gated: accept its licence at https://huggingface.co/{repository}, then `hf auth login` "
        f"and `hf download {repository}`; or give a folder with --fluxperf-model=PATH"
    )


def absent(repository: str) -> str:
    """What to say of a repository that the hub does not show."""
    return (
        f"the hub has no {repository}, or it is private: check the name at https://huggingface.co/{repository}; if it "
        f"is private, `hf auth login`, then `hf download {repository}`"
    )


def lack(repository: str) -> str | None:
    """What keeps a hub model from being loaded without the hub: absent, or partly downloaded; None if it is whole.

    Raises ImportError without huggingface_hub.
    """
    import huggingface_hub as hub

    index = hub.try_to_load_from_cache(repository, "model_index.json")
    if not isinstance(index, str):
        return "is not in the local cache"
    try:
        check_model_folder(Path(index).parent)
    except FluxPerfError as error:
        return f"is incomplete in the local cache ({error})"
    return None


def _hub(repository: str) -> Access:
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        why = f"{repository} cannot be looked for: huggingface_hub cannot be imported ({one_line(error)})"
        return Access("unknown", f"{why}; pip install huggingface_hub, or give a folder with --fluxperf-model=PATH")
    lacking = lack(repository)
    if lacking is None:
        return Access("here", f"{repository}: whole, in the local cache")
    fetch = how_to_fetch(repository)
    if constants.HF_HUB_OFFLINE:
        return Access("refused", f"{repository} {lacking} and HF_HUB_OFFLINE is set; {fetch}")
    try:
        hub.HfApi().auth_check(repository)
    except errors.GatedRepoError:
        return Access("refused", gated(repository))
    except errors.RepositoryNotFoundError:
        return Access("refused", absent(repository))
    except Exception as error:
        return Access("unknown", f"{repository} {lacking} and the hub does not answer ({one_line(error)}); {fetch}")
    return Access("allowed", f"{repository} may be used but {lacking}; fetch it with `hf download {repository}`")
