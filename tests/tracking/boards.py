"""What is in event files, record by record: no reader's idea of what to drop or to sample comes in between."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.projector import projector_config_pb2


def raw_events(folder: Path) -> list[Any]:
    """All events of the files in a directory."""
    paths = sorted(folder.glob("events.out.tfevents.*"))
    return [event for path in paths for event in LegacyEventFileLoader(str(path)).Load()]


def steps_by_tag(folder: Path) -> dict[str, list[int]]:
    """Tag -> the steps at which it stands there, as written."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in raw_events(folder):
        for value in event.summary.value:
            found[value.tag].append(event.step)
    return dict(found)


def numbers(folder: Path) -> dict[str, list[float]]:
    """Scalars by tag as TensorBoard's own reader gives them, without those that the clock and the machine decide."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["scalars"] if not tag.startswith(("speed/", "memory/", "final/seconds"))]
    return {tag: [event.value for event in accumulator.Scalars(tag)] for tag in tags}


def text_of(folder: Path, name: str) -> str:
    """The only text of a name."""
    tag = f"{name}/text_summary"
    (found,) = (value for event in raw_events(folder) for value in event.summary.value if value.tag == tag)
    return found.tensor.string_val[0].decode()


def hparams_of(folder: Path) -> dict[str, str | float]:
    """A run's row of the HPARAMS table."""
    info = metadata.parse_session_start_info_plugin_data(_plugin_data(folder, metadata.SESSION_START_INFO_TAG))
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in info.hparams.items()}


def hparam_columns(folder: Path) -> tuple[list[str], list[str]]:
    """What a run says the table's columns are: hyper-parameters and metrics."""
    experiment = metadata.parse_experiment_plugin_data(_plugin_data(folder, metadata.EXPERIMENT_TAG))
    return [info.name for info in experiment.hparam_infos], [info.name.tag for info in experiment.metric_infos]


def projector_of(folder: Path) -> Any:
    """The projector's configuration."""
    text = (folder / "projector_config.pbtxt").read_text()
    return text_format.Parse(text, projector_config_pb2.ProjectorConfig())  # pyright: ignore


def runs_below(folder: Path) -> set[str]:
    """The directories that TensorBoard takes for runs, relative to the folder."""
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("events.out.tfevents.*")}


def _plugin_data(folder: Path, tag: str) -> bytes:
    (found,) = (value for event in raw_events(folder) for value in event.summary.value if value.tag == tag)
    return found.metadata.plugin_data.content
