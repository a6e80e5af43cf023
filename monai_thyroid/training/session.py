"""One training run, from its config to its finished run folder."""

from __future__ import annotations

import logging
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.engines import Evaluator, Trainer

from monai_thyroid.data import Datalist, ResidentLoader
from monai_thyroid.errors import UserError, message_of
from monai_thyroid.evaluation.choosing import chosen_postprocessing
from monai_thyroid.evaluation.components import applied_config
from monai_thyroid.evaluation.cost import inference_cost
from monai_thyroid.evaluation.environment import machine, versions
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.evaluation.scoring import CaseScores, whole_of
from monai_thyroid.evaluation.trained import TrainedRun
from monai_thyroid.evaluation.weights import find_weights, fit_weights, load_state
from monai_thyroid.files import atomic_path, locked, sha256_file
from monai_thyroid.networks import to_channels_last
from monai_thyroid.runfolder import RunFolder, RunRecord, protocol_hash, read_run, run_hash, run_path
from monai_thyroid.training.baseline import threshold_baseline
from monai_thyroid.training.caller import calling_workflow, on_command_line
from monai_thyroid.training.config import executed_config
from monai_thyroid.training.distributed import processes, rank
from monai_thyroid.training.figures import draw_curves
from monai_thyroid.training.layout import channels_last_is_faster
from monai_thyroid.training.recorder import Recorder, on_cpu
from monai_thyroid.training.schedule import TimeBudget

__all__ = ["TrainingSession", "training_session"]

logger = logging.getLogger(__name__)


class TrainingSession:
    """The run a training config describes; nothing is written before `execute`.

    Args:
        config: from `executed_config`.
        data: the dataset it trains on.
        found: gives what is written into config.yaml in the place of names of the config, or besides. It may read the
            training images, so it is asked only when the run begins.
        started: when the command began, by `time.perf_counter`.

    Attributes:
        folder: the run folder, with its record.
        path: where it is.
    """

    def __init__(
        self,
        config: dict[str, Any],
        data: Datalist,
        *,
        found: Callable[[], Mapping[str, Any]] = dict,
        started: float | None = None,
    ) -> None:
        if config.get("hours"):  # which decides on the number of epochs later
            config = {**config, "max_epochs": None}
        self.config = config
        self.found = found
        self.started = time.perf_counter() if started is None else started
        self.data = data
        self.seed: int = config["seed"]
        self.classes: list[str] = config["classes"]
        self.whole: str | None = whole_of(self.classes, config.get("whole"))
        self.activation: str = config["activation"]
        self.configured_threshold: float = config["threshold"]
        self.postprocessing = Postprocessing()
        self.protocol_hash = protocol_hash(config)
        self.path = run_path(
            config["output_dir"],
            bundle=config["bundle"],
            dataset=data.name,
            network=config["network"],
            protocol_hash=self.protocol_hash,
            seed=self.seed,
            fold=data.fold[0] if data.fold else None,
        )
        self.folder = RunFolder(self.path)
        self.folder.writes = rank() == 0

    @property
    def threshold(self) -> float:
        """The chosen threshold, else the configured one."""
        return self.postprocessing.threshold_or(self.configured_threshold)

    @property
    def scores_test(self) -> bool:
        """Whether the test part is scored at the end; else nothing of it is looked at."""
        return bool(self.config.get("score_test", True))

    @property
    def writes(self) -> bool:
        """Whether this process writes: the first of several, unless told otherwise."""
        return self.folder.writes

    @writes.setter
    def writes(self, value: bool) -> None:
        self.folder.writes = value

    @property
    def checkpoint_sha256(self) -> str | None:
        """SHA-256 of the best checkpoint, None before there is one."""
        return self.folder.record.checkpoint_sha256

    @property
    def own_data(self) -> tuple[str | None, str | None]:
        """Name and hash of the data it trains on."""
        return self.data.name, self.data.inspect().data_hash

    def execute(
        self,
        *trainers: Trainer,
        test: Evaluator,
        scores: CaseScores,
        trackers: Sequence[Callable[[], Any] | None] = (),
    ) -> None:
        """Train, score the best checkpoint once on the test part, and leave a finished run folder.

        With ``score_test: false`` in the config the last step is left out, for choices that are to be made on
        validation alone.

        Args:
            trainers: one a stage, in order, of one network; the handlers of each hold the `Recorder` of its stage. A
                stage starts from the best checkpoint of the one before.
            test: evaluates the test part; shares its network with the trainers.
            scores: the handler of ``test`` that scores its cases.
            trackers: makers of further handlers of a trainer (TensorBoard, MLflow), called for each stage once the run
                folder is there; None is left out.

        Raises:
            UserError: the run folder is finished, interrupted or in use, and the options do not say what to do.
        """
        recorders = [Recorder.of(trainer) for trainer in trainers]
        if [recorder.stage for recorder in recorders] != [*range(1, len(trainers) + 1)] or not trainers:
            raise ValueError("each trainer needs the Recorder of its stage, 1 to the last, among its handlers")
        with _mistakes_as_messages():
            if not self.writes:
                for trainer in trainers:
                    start = self._share(None)
                    if start is None:
                        return
                    self._train(trainer, recorders, start, [])
                return
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path), _stop_signals() as stopped:
                state = self._open()
                if self.folder.record.status == "done":
                    logger.info("This run is complete and unchanged: %s", self.path)
                    self._share(None)
                    return
                try:
                    self._announce()
                    for trainer, recorder in zip(trainers, recorders, strict=True):
                        own = self._start(recorder, state, test, scores)
                        start = self._share({**own, "decided": self._decided(trainer, recorder)})
                        assert start is not None
                        self._train(trainer, recorders, start, trackers)
                        self._end_stage(recorder)
                    self._finish(recorders[-1], test, scores)
                except BaseException as error:
                    # In the middle of a save a library may have made something else of the signal.
                    cause = KeyboardInterrupt() if stopped.is_set() else error
                    self._fail(cause)
                    raise cause from error.__cause__

    def _announce(self) -> None:
        counts = ", ".join(f"{len(self.data.part(part))} {part}" for part in ("train", "validation", "test"))
        network, device, precision = (self.config[name] for name in ("network", "device", "precision"))
        logger.info("Training %s on %s (%s images), %s, %s", network, self.data.name, counts, device, precision)

    def _share(self, start: dict[str, Any] | None) -> dict[str, Any] | None:
        """Give the first process's starting point to all processes of a distributed training."""
        if processes() > 1:
            box = [start]
            torch.distributed.broadcast_object_list(box)
            start = box[0]
        return start

    def check_folder(self) -> None:
        """Refuse the run folder where `execute` would, but before the images are read.

        Raises:
            UserError: as `execute`.
        """
        if self.writes and self.folder.started:
            with _mistakes_as_messages(), locked(self.path):
                self._earlier(self._hashes()[0])

    def _hashes(self) -> tuple[str, Path | None, str | None]:
        """Of the run; the weights it starts from, and theirs."""
        parent = find_weights(self.config["init_from"]) if self.config.get("init_from") else None
        parent_sha256 = sha256_file(parent) if parent else None
        data_hash = self.data.inspect().data_hash
        return run_hash(self.config, data_hash=data_hash, parent_sha256=parent_sha256), parent, parent_sha256

    def _earlier(self, now: str) -> RunRecord | None:
        """The record of a run that is in the folder and to be gone on with, if it may be.

        Args:
            now: hash of the run that is to be.
        """
        if not self.folder.started or self.config["overwrite"]:
            return None
        try:
            earlier = self.folder.open()
        except UserError as error:
            raise UserError([*error.problems, f"{self.path}: --overwrite true starts anew"]) from error
        if not self.config["resume"]:
            raise UserError(
                f"{self.path}: holds a finished run; --overwrite true replaces it"
                if earlier.status == "done"
                else f"{self.path}: holds an unfinished run; --resume true goes on, --overwrite true starts anew"
            )
        if earlier.run_hash != now:
            what = "data" if earlier.data_hash != self.data.inspect().data_hash else "settings"
            raise UserError(f"{self.path}: was started with other {what}; --overwrite true starts anew")
        return earlier

    def _open(self) -> dict[str, Any] | None:
        """Create, resume or refuse the run folder; return what last.pt holds when resuming."""
        now, parent, parent_sha256 = self._hashes()
        if (earlier := self._earlier(now)) is not None:
            if earlier.status == "done":
                return None
            undecided = self.config.get("hours") and self.folder.decided()["max_epochs"] is None
            try:
                state = load_state(self.folder.last) if self.folder.last.is_file() and not undecided else None
            except UserError as error:
                self.folder.update(status="failed", error=str(error))
                raise
            self.folder.update(status="running", error=None)
            return state
        record = RunRecord(
            bundle=self.config["bundle"],
            dataset=self.data.name,
            dataset_dir=str(self.data.root) if self.data.root else None,
            synthetic=self.data.root is None,
            grouping=self.data.grouping,
            split=self.data.how,
            warnings=self.data.inspect().warnings,
            network=self.config["network"],
            seed=self.seed,
            fold=self.data.fold[0] if self.data.fold else None,
            folds=self.data.fold[1] if self.data.fold else None,
            stage=1,
            stages=[],
            classes=self.classes,
            whole=self.whole,
            activation=self.activation,
            threshold=self.configured_threshold,
            data_hash=self.data.inspect().data_hash,
            protocol_hash=self.protocol_hash,
            run_hash=now,
            parent_sha256=parent_sha256,
            init_from={"path": str(parent)} if parent else None,
            pretrained_on=_pretrained_on(self.config, parent),
            tuning=self.config.get("tuning"),
            versions=versions(),
            machine=machine(),
            device=str(self.config["device"]),
            precision=self.config["precision"],
            epochs=0,
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            status="running",
        )
        config = {key: value for key, value in self.config.items() if key not in ("resume", "overwrite")}
        config |= self.found()
        self.folder.begin(record, config=config, split=self.data.split())
        return None

    def _start(
        self, recorder: Recorder, state: dict[str, Any] | None, test: Evaluator, scores: CaseScores
    ) -> dict[str, Any]:
        """What a stage begins with: where it was interrupted, the best of the stage before, or new weights."""
        stage, network = recorder.stage, recorder.network
        if state is not None and stage <= state["stage"]:
            return state
        if stage > 1:
            earlier = self.folder.stage_file(stage - 1)
            # Written before anything of this stage, which may be interrupted in its first epoch.
            if not earlier.is_file():
                with atomic_path(earlier) as temporary:
                    shutil.copyfile(self.folder.model, temporary)
            weights = torch.load(earlier, map_location="cpu", weights_only=True)
            return {"stage": stage, "epoch": 0, "network": weights, "recorder": None}
        if begun := self.folder.record.init_from:
            report = fit_weights(network, Path(begun["path"]))
            before = None
            if self.scores_test:
                scores.keep = False
                test.run()
                scores.keep = True
                before = scores.summary["dice_mean"]
                logger.info("Before training: %s", scores.sentence())
            self.folder.update(init_from={**begun, **report, "test_dice_before": before})
        return {"stage": 1, "epoch": 0, "network": on_cpu(network.state_dict()), "recorder": None}

    def _decided(self, trainer: Trainer, recorder: Recorder) -> dict[str, Any]:
        """What is measured once at the start of a run, and kept by a resumed one: the layout, the number of epochs."""
        config = self.folder.decided()
        decided = {name: config.get(name) for name in ("channels_last", "max_epochs")}
        loader = recorder.epoch_seed.dataset
        if "channels_last" in self.config and decided["channels_last"] is None and isinstance(loader, ResidentLoader):
            shape = (min(2, loader.batch_size), *loader.dataset.images.shape[1:])
            decided["channels_last"] = channels_last_is_faster(recorder.network, inferer=trainer.inferer, shape=shape)
            self.folder.decide(channels_last=decided["channels_last"])
        return decided

    def _train(
        self,
        trainer: Trainer,
        recorders: Sequence[Recorder],
        start: dict[str, Any],
        trackers: Sequence[Callable[..., Any] | None],
    ) -> None:
        recorder = Recorder.of(trainer)
        if start["stage"] > recorder.stage:
            return
        recorder.network.load_state_dict(start["network"])
        if recorder.average is not None:
            recorder.average.network.load_state_dict(start["network"])
        if start["decided"]["channels_last"]:
            for network in (recorder.network, recorder.delivered):
                to_channels_last(network)
        if budget := TimeBudget.of(trainer):
            budget.begin(
                trainer,
                epochs=start["decided"]["max_epochs"],
                started=self.started,
                decided=lambda epochs: self._keep(trainer, recorder, epochs),
            )
        if recorder.stage > 1:
            recorder.follow(recorders[recorder.stage - 2])
        if start["recorder"] is not None:
            recorder.load_state_dict(start["recorder"])
            trainer.state.epoch = start["epoch"]
            trainer.state.iteration = start["epoch"] * trainer.state.epoch_length
            logger.info("Resuming after epoch %d of stage %d: %s", start["epoch"], recorder.stage, self.path)
        done = 0
        if self.writes:
            parameters = sum(parameter.numel() for parameter in recorder.network.parameters())
            self.folder.update(parameters=parameters)
            self.folder.trim(stage=recorder.stage, epoch=start["epoch"])
            done = sum(entry["epochs"] for entry in self.folder.record.stages or [])
        # Ignite would start again from epoch 0 where nothing is left to do.
        if trainer.state.epoch >= trainer.state.max_epochs or recorder.exhausted:
            return
        for tracker in trackers:
            if tracker is not None:
                (tracker(global_epoch_transform=lambda epoch: epoch + done) if done else tracker()).attach(trainer)
        try:
            trainer.run()
        except BaseException:
            if self.writes:
                self._keep_best(recorder)
            raise

    def _keep(self, trainer: Trainer, recorder: Recorder, epochs: int) -> None:
        """Keep the number of epochs that fit into the time: first last.pt, whose schedule is told it by now."""
        if self.writes:
            recorder.save(trainer)
            self.folder.decide(max_epochs=epochs)

    def _keep_best(self, recorder: Recorder) -> None:
        try:
            recorder.keep_best()
        except OSError as error:  # which may be why the training fails
            logger.error("%s; the best weights could not be written: %s", self.path, message_of(error))

    def _end_stage(self, recorder: Recorder) -> None:
        """Enter a finished stage into run.json."""
        record, stage = self.folder.record, recorder.stage
        stages = record.stages or []
        if len(stages) >= stage:  # resumed after it
            return
        rows = [row for row in self.folder.history() if row.stage == stage]
        entry = {
            "stage": stage,
            "epochs": len(rows),
            "best_val_dice": max((row.val_dice for row in rows if row.val_dice is not None), default=None),
            "images": recorder.images,
            "training_seconds": round(recorder.seconds, 3),
            "parent_sha256": sha256_file(self.folder.stage_file(stage - 1)) if stage > 1 else record.parent_sha256,
        }
        self.folder.update(stages=[*stages, entry])

    def _finish(self, recorder: Recorder, test: Evaluator, scores: CaseScores) -> None:
        best = self.folder.model
        recorder.network.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
        history, stages = self.folder.history(), self.folder.record.stages or []
        images, seconds = (sum(entry[key] for entry in stages) for key in ("images", "training_seconds"))
        self.folder.update(
            checkpoint_sha256=sha256_file(best),
            stage=recorder.best_stage,
            best_epoch=recorder.best_epoch,
            epochs=len(history),
            seconds=round(sum(row.seconds or 0.0 for row in history), 3),
            images_per_second=round(images / seconds, 3) if seconds else None,
        )
        if self.config.get("postprocess") == "choose":
            # It is this program's own config; and the test must be of what the run will deliver.
            trained = TrainedRun(str(self.path), trust=True, finishing=True)
            record = chosen_postprocessing(trained, self.data, device=str(self.config["device"]))
            self.folder.update(postprocessing=record)
            self.postprocessing = Postprocessing.from_record(record)
        draw_curves(history, self.folder.figures)
        if not self.scores_test:
            self.folder.update(status="done")
            logger.info(
                "The test part was left alone (score_test: false); best validation Dice of an epoch %.4f: %s",
                max((row.val_dice for row in history if row.val_dice is not None), default=float("nan")),
                self.path,
            )
            return
        test.run()
        if scores.input_shape:
            self.folder.update(**inference_cost(recorder.network, test.inferer, shape=scores.input_shape))
        baseline = None
        if len(self.classes) == 1:
            baseline = threshold_baseline(self.data.part("train"), self.data.part("test"))
        self.folder.update(
            test={
                **{key: scores.summary[key] for key in ("dice_mean", "iou_foreground_mean", "n_cases")},
                "classes": {name: summary["dice_mean"] for name, summary in scores.by_class.items()},
            },
            threshold_baseline=baseline,
            status="done",
        )
        self._tell(scores, baseline)

    def _tell(self, scores: CaseScores, baseline: dict[str, Any] | None) -> None:
        """Say in a few lines what came out, and where it is."""
        started = self.folder.record.init_from
        lines = ["", scores.sentence()]
        if started and started["test_dice_before"] is not None:
            lines.append(f"The model it started from: Dice {started['test_dice_before']:.4f}")
        if baseline:
            lines.append(f"A threshold tuned on the training images: Dice {baseline['test_dice']:.4f}")
        if self.data.grouping == "unknown":
            lines.append("Warning: patients are unknown here, so images of one may be in training and in test.")
        elif self.data.grouping == "leaky":
            lines.append("Warning: LEAKY split, as asked for: images of one patient are in training and in test.")
        lines += [f"Warning: {warning}" for warning in self.data.inspect().warnings]
        if self.data.root is None:
            lines.append("These scans are SYNTHETIC: the figures say that the machinery works, nothing about patients.")
        lines += [
            f"Run folder: {self.path}",
            f"  weights {self.path / 'model.pt'}, curves {self.path / 'figures' / 'curves.png'}",
            "Next:",
            # Which holds wherever the config lies; a packed one has only its own model's transforms.
            f"  monai-thyroid predict {shlex.quote(str(self.path))} IMAGE_OR_FOLDER --output DIR",
        ]
        if self.data.root is None:
            lines.append("  this training with images of yours: the same command and --dataset_dir YOUR_FOLDER")
        logger.info("\n".join(lines))

    def _fail(self, error: BaseException) -> None:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        text = "interrupted" if interrupted else message_of(error) or f"{type(error).__name__}: {error}"
        try:
            self.folder.update(status="failed", error=text)
        except OSError as again:  # the disk is still full
            logger.error("%s; run.json could not be written: %s", self.path, message_of(again))
        logger.error("%s; the run folder keeps what there is: %s", text, self.path)


def _pretrained_on(config: Mapping[str, Any], parent: Path | None) -> list[str] | None:
    """What the weights that a training starts from had seen, as far as files tell; None where they do not."""
    if parent is None:
        return _begun_with(config["networks"].get(config["network"]))
    try:
        earlier = read_run(parent.parent)
    except UserError:
        return None
    if earlier.pretrained_on is None or earlier.dataset is None:
        return None
    return list(dict.fromkeys([*earlier.pretrained_on, earlier.dataset]))


def _begun_with(block: Any) -> list[str] | None:
    """What the weights in a network's block, or in one within it, are called; None where it does not say."""
    if not isinstance(block, Mapping):
        return []
    if block.get("pretrained") is True:
        return None
    named = [block[name] for name in ("weights", "encoder_weights") if block.get(name) not in (None, "null")]
    found = ["ImageNet" if one == "imagenet" else Path(str(one)).name for one in named]
    for part in block.values():
        if isinstance(part, Mapping) and "_target_" in part:
            within = _begun_with(part)
            if within is None:
                return None
            found += within
    return found


def training_session() -> TrainingSession:
    """Make the session of the config in which this is written.

    Raises:
        UserError: a constant cannot be read.
    """
    started = time.perf_counter()
    parser = calling_workflow().parser
    config = executed_config(parser)
    data = parser.get_parsed_content("data")

    def found() -> dict[str, Any]:
        numbers = {name: parser.get_parsed_content(name) for name in ("normalisation",) if name in config}
        return {**numbers, "applied": applied_config(config, lambda identity, _: parser.get_parsed_content(identity))}

    return TrainingSession(config, data, found=found, started=started)


@contextmanager
def _mistakes_as_messages() -> Iterator[None]:
    """Under the command line whatever ends a training ends the process with a message and no traceback.

    The status is 1; 130 after Ctrl-C or SIGTERM.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not on_command_line():
            raise
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write("interrupted; --resume true goes on\n")
            raise SystemExit(130) from error
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error}\n  in {where.filename}, line {where.lineno}"
        raise SystemExit(message_of(error) or f"{told}; `monai-thyroid check` begins every part by itself") from error


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Let SIGTERM, with which schedulers end a job, end the run as Ctrl-C does: with its state written down.

    Yields:
        Whether one of them has come.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        raise KeyboardInterrupt

    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signals.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
