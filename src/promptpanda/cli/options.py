"""Option groups that several commands take; each knows how to become objects of the library."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from promptpanda.errors import PandaError
from promptpanda.names import Precision

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.card import Card
    from promptpanda.tasks.protocol import Protocol
    from promptpanda.tasks.task import Task
    from promptpanda.training.distillation import DistillationOptions
    from promptpanda.training.options import TrainingOptions
    from promptpanda.transfers.estimators import Cosine

# Panels of --help, in the order in which they are shown.
DATA = "Your data"
MODEL = "Model and bank"
TRAINING = "Training"
PANDA = "PANDA"
SELECTION = "Source and selection"
OUTPUT = "Output"

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="PANDA_DATA",
        help="Data root: one folder per task, with train, validation, test files.",
        rich_help_panel=DATA,
    ),
]
BankFolder = Annotated[Path, typer.Option("--bank", help="Folder of the prompt bank.", rich_help_panel=MODEL)]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.", rich_help_panel=OUTPUT)
]
LogTo = Annotated[
    Literal["mlflow", "trackio", "wandb"] | None,
    typer.Option("--log-to", help="Also log finished trainings to this tracker.", rich_help_panel=OUTPUT),
]
Dtype = Annotated[
    Precision | None,
    typer.Option(
        metavar="NAME",
        help="Number format of the model: auto (the checkpoint's), float32, bfloat16, float16, int8 or nf4; by default "
        "the prompt's, or float32.",
        rich_help_panel=MODEL,
    ),
]
ProtocolName = Literal["clean", "paper"]


PromptReference = Annotated[str, typer.Argument(metavar="PROMPT", help="Bank id, path, or task name.")]
NoStarter = Annotated[bool, typer.Option("--no-starter", help="Leave out installed banks.")]


_FOR_OWN_FILES = ["text", "text2", "choices", "label", "label_separator", "kind", "metric", "name"]
_FOR_OWN_FILES += ["text_column", "tag_column", "delimiter", "sheet", "strict"]


@dataclass(frozen=True)
class TaskChoice:
    """A catalog task, a YAML spec, or own files."""

    panel: ClassVar[str] = DATA

    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK", help="Catalog name (`panda tasks list`) or YAML spec; leave it out for own files."
        ),
    ] = None
    train: Annotated[
        Path | None,
        typer.Option(
            help="Own training file: .csv, .tsv, .xlsx, .json, .jsonl, .parquet and others; tags also .conll."
        ),
    ] = None
    validation: Annotated[
        Path | None,
        typer.Option(help="Own validation file: for --protocol paper, or as test data if there is no --test."),
    ] = None
    test: Annotated[Path | None, typer.Option(help="Own test file.")] = None
    text: Annotated[str | None, typer.Option(help="Own files: column with the text.")] = None
    text2: Annotated[
        str | None,
        typer.Option(help="Own files: column with the second text of a pair, or the context of a question."),
    ] = None
    choices: Annotated[
        str | None,
        typer.Option(help="Own files: columns of the choices, separated by commas, or one that lists them."),
    ] = None
    label: Annotated[
        list[str] | None, typer.Option(help="Own files: label column; several times for columns of 0 and 1.")
    ] = None
    label_separator: Annotated[
        str | None, typer.Option(help="Own files: separator between labels in a cell; by default a bar.")
    ] = None
    kind: Annotated[
        Literal[
            "single_classification",
            "pair_classification",
            "multi_label",
            "regression",
            "multiple_choice",
            "token_classification",
            "extractive_qa",
        ]
        | None,
        typer.Option(
            metavar="KIND",
            help="Own files: kind of the task: single_classification or pair_classification (the defaults), "
            "multi_label, regression, multiple_choice, token_classification, extractive_qa.",
        ),
    ] = None
    metric: Annotated[
        str | None, typer.Option(help="Own files: metric to choose by; by default it depends on kind and data.")
    ] = None
    name: Annotated[str | None, typer.Option(help="Own files: name of the task; by default the file's.")] = None
    text_column: Annotated[
        int | None,
        typer.Option(help="Column files (.conll, .conllu): column of the words, counted from 0; -1 is the last."),
    ] = None
    tag_column: Annotated[int | None, typer.Option(help="Column files: column of the tags.")] = None
    delimiter: Annotated[
        str | None,
        typer.Option(help="Own .csv and .tsv: comma, semicolon, tab, bar, or a character; by default detected."),
    ] = None
    sheet: Annotated[str | None, typer.Option(help="Own .xlsx: the sheet, by name or number.")] = None
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Own files: refuse rows without label or text instead of leaving them out."),
    ] = False
    template: Annotated[
        str | None,
        typer.Option(help="Another way to write the task's text (`panda tasks show`)."),
    ] = None
    data_dir: DataDir = None

    def load(self) -> Task:
        """The task that the options mean."""
        from promptpanda.tasks.catalog import load_task, own_task
        from promptpanda.tasks.spec import Kind

        if self.task is not None:
            if self.own:
                raise PandaError(f"Both the task '{self.task}' and own files were given; give one of them.")
            for option in _FOR_OWN_FILES:
                if getattr(self, option) not in (None, False, []):
                    given = option.replace("_", "-")
                    raise PandaError(
                        f"--{given} is for own files, and the task '{self.task}' was given; leave one out."
                    )
            return load_task(self.task, data_dir=self.data_dir, template=self.template)
        if not self.own:
            raise PandaError("No task was given: name one of `panda tasks list`, a YAML spec, or --train FILE.")
        if self.template is not None:
            raise PandaError("--template is for tasks of the catalog and YAML specs, and own files were given.")
        task = own_task(
            train=self.train,
            validation=self.validation,
            test=self.test,
            text=self.text,
            text2=self.text2,
            choices=() if self.choices is None else tuple(self.choices.split(",")),
            label=self.label or None,
            label_separator=self.label_separator,
            metric=self.metric,
            kind=None if self.kind is None else Kind(self.kind),
            name=self.name,
            text_column=self.text_column,
            tag_column=self.tag_column,
            delimiter=self.delimiter,
            sheet=self.sheet,
            strict=self.strict,
        )
        return self.with_notes(task)

    @staticmethod
    def with_notes(task: Task) -> Task:
        """A task whose notes about the data go to the terminal."""
        task.tell = functools.partial(typer.echo, err=True)
        return task

    @property
    def own(self) -> bool:
        """Whether own files are given."""
        return any(path is not None for path in (self.train, self.validation, self.test))


@dataclass(frozen=True)
class LabelledRows(TaskChoice):
    """What a prompt is evaluated on: also a file alone, whose columns are in the prompt's card."""

    task: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|TASK]",
            help="Labelled rows, with the columns that the prompt was trained on; or a catalog name or YAML spec. By "
            "default the test data of the prompt's own task.",
        ),
    ] = None


@dataclass(frozen=True)
class ModelChoice:
    """The backbone and the bank."""

    panel: ClassVar[str] = MODEL

    model: Annotated[
        str | None,
        typer.Option(help="Hub id or folder of the frozen model; by default the embedded one."),
    ] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub.")] = None
    dtype: Dtype = None
    device_map: Annotated[
        str | None, typer.Option(help="auto: spread a model that is too large for one device over all devices.")
    ] = None
    bank: BankFolder = Path("bank")
    no_starter: NoStarter = False
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False

    def load(self, card: Card | None = None) -> Backbone:
        """The backbone; where the user names no model or number format, that of a card is taken."""
        from promptpanda.backbone import Backbone, default_device
        from promptpanda.quiet import quiet_libraries

        quiet_libraries()
        name, dtype = self.model, self.dtype
        if card is not None:
            name, dtype = name or card.backbone.name, dtype or card.backbone.precision
        return Backbone.load(
            name,
            revision=self.revision,
            device=default_device(),
            dtype=dtype or "float32",
            device_map=self.device_map,
        )

    def open_bank(self) -> Bank:
        """The bank; `--offline` takes effect here, before any library that could use the network is imported."""
        if self.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        from promptpanda.bank.bank import Bank
        from promptpanda.quiet import quiet_loggers

        quiet_loggers()
        return Bank(self.bank, others={} if self.no_starter else None)


def warn_moved(card: Card, backbone: Backbone) -> None:
    """Say on stderr that a prompt was trained in another number format."""
    from promptpanda.bank.ownership import moved

    note = moved(card, backbone)
    if note is not None:
        typer.echo(note, err=True)


@dataclass(frozen=True)
class DataChoice:
    """Which examples count."""

    panel: ClassVar[str] = DATA

    train_examples: Annotated[
        int | None,
        typer.Option(min=1, help="Budget of labelled examples, training and validation together; by default all."),
    ] = None
    seeds: Annotated[str, typer.Option(help="Seeds, such as 0,1,2; each draws its own subset, order and head.")] = "0"
    protocol: Annotated[
        ProtocolName,
        typer.Option(help="clean: choose on a part of the budget; paper: choose and report on the validation set."),
    ] = "clean"

    def seed_list(self) -> tuple[int, ...]:
        """The seeds as numbers."""
        try:
            seeds = tuple(int(part) for part in self.seeds.split(","))
        except ValueError as error:
            raise PandaError(f"--seeds must be numbers with commas, such as 0,1,2; found {self.seeds!r}.") from error
        from promptpanda.tasks.protocol import check_seeds

        return check_seeds(seeds)

    def protocol_name(self) -> Protocol:
        return self.protocol


@dataclass(frozen=True)
class TrainingChoice:
    """How prompts are trained; what is left out keeps the default of `TrainingOptions`."""

    panel: ClassVar[str] = TRAINING

    recipe: Annotated[
        str | None,
        typer.Option(help="Named settings (`panda recipes list`); explicit options override them."),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training part; by default about 200 steps, within 3 to 40 epochs."),
    ] = None
    lr: Annotated[
        str | None,
        typer.Option(help="Peak learning rate; by default .01. auto tries three on validation data."),
    ] = None
    model_lr: Annotated[float | None, typer.Option(help="Peak learning rate of model tuning; by default .0001.")] = None
    batch_size: Annotated[int | None, typer.Option(help="Examples per step; by default 16.")] = None
    prompt_kind: Annotated[
        Literal["prefix", "shallow"] | None,
        typer.Option(help="prefix, in every layer (the default), or shallow, only before the input."),
    ] = None
    prompt_length: Annotated[int | None, typer.Option(help="Virtual tokens (V); by default 20, or as the source.")] = (
        None
    )
    init_std: Annotated[
        float | None, typer.Option(help="Standard deviation of a fresh prompt's values; by default 1.")
    ] = None
    reparameterize: Annotated[
        int | None, typer.Option(help="Width of an MLP to train fresh prompts through; by default none.")
    ] = None
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of an input, or of a window; by default 128 to 384, by the data.")
    ] = None
    readout: Annotated[
        Literal["auto", "pooler", "cls", "mean", "last", "compare"] | None,
        typer.Option(
            metavar="NAME",
            help="Pooling of hidden states: auto, pooler, cls, mean, last; compare reads a pair's texts separately.",
        ),
    ] = None
    dropout: Annotated[
        float | None, typer.Option(help="Dropout on prompt and head; by default .1. The backbone has none.")
    ] = None
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of AdamW; by default 0.")] = None
    early_stopping: Annotated[
        int | None,
        typer.Option(help="Stop after this many epochs without a better validation score; by default never."),
    ] = None
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Save memory by computing layers twice, which takes longer."),
    ] = False
    precision: Annotated[Literal["no", "bf16", "fp16"] | None, typer.Option(help="Mixed precision; by default no.")] = (
        None
    )
    train_layers: Annotated[
        int | None,
        typer.Option(help="How many layers learn their prefixes, from the top; by default all. Fewer take less time."),
    ] = None
    beside: Annotated[
        int | None,
        typer.Option(
            help="How many trainings (of a race, of seeds) share a batch, which may take less time; by default 1."
        ),
    ] = None
    class_weights: Annotated[
        Literal["balanced"] | None, typer.Option(help="balanced: rare classes count as much as frequent ones.")
    ] = None

    def options(self) -> TrainingOptions:
        """Validated options. Raises PandaError that names the one out of range."""
        from promptpanda.training.options import TrainingOptions

        given = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        given.pop("recipe", None)
        if isinstance(given.get("lr"), str) and given["lr"] != "auto":
            try:
                given["lr"] = float(given["lr"])
            except ValueError as error:
                raise PandaError(f"--lr must be a number or auto, found {given['lr']!r}.") from error
        return TrainingOptions.of(**(self._of_recipe() | given))

    def coefficient(self) -> str | None:
        """PANDA's coefficient, where the recipe names one."""
        from promptpanda.training.recipes import recipe

        return None if self.recipe is None else recipe(self.recipe).coefficient

    def _of_recipe(self) -> dict[str, object]:
        from promptpanda.training.recipes import recipe

        return {} if self.recipe is None else recipe(self.recipe).options.model_dump(exclude_unset=True)


@dataclass(frozen=True)
class DistillationChoice:
    """How a student learns from its teacher."""

    panel: ClassVar[str] = PANDA

    coefficient: Annotated[
        str | None,
        typer.Option(
            help="PANDA: adaptive (scale x clipped transferability; the default), published, or a number.",
        ),
    ] = None
    coefficient_scale: Annotated[float, typer.Option(min=0.0, help="Scale of the adaptive coefficient.")] = 1.0
    distance: Annotated[Literal["mse", "kl"], typer.Option(help="PANDA: distance between the outputs.")] = "mse"
    temperature: Annotated[float, typer.Option(min=0.01, help="PANDA: temperature of kl.")] = 1.0
    student: Annotated[
        Literal["fresh", "source"],
        typer.Option(help="PANDA: prompt that the student starts from; source is a control."),
    ] = "fresh"
    teacher: Annotated[
        Literal["trained", "random"],
        typer.Option(help="PANDA: the teacher; random, which learnt nothing, is a control."),
    ] = "trained"
    unlabeled_weight: Annotated[
        float, typer.Option(min=0.0, help="--unlabeled: weight of the distance on these texts.")
    ] = 1.0
    confidence: Annotated[
        bool,
        typer.Option("--confidence", help="--unlabeled: weight each text by how certain the teacher is."),
    ] = False

    def options(self, recipe: str | None) -> DistillationOptions:
        """As an object of the library.

        Args:
            recipe: the coefficient of a recipe; the option overrides it.
        """
        from promptpanda.training.distillation import DistillationOptions

        return DistillationOptions(
            coefficient=self.coefficient or recipe or "adaptive",
            scale=self.coefficient_scale,
            distance=self.distance,
            temperature=self.temperature,
            student=self.student,
            teacher=self.teacher,
            unlabeled_weight=self.unlabeled_weight,
            confidence=self.confidence,
        )


@dataclass(frozen=True)
class MetricChoice:
    """Options of PANDA's metric, which governs the adaptive coefficient."""

    panel: ClassVar[str] = PANDA

    cosine_layer: Annotated[
        int, typer.Option(help="Estimator cosine: hidden states of this layer; -1 is the last.")
    ] = -1
    cosine_pooling: Annotated[
        Literal["mean", "first"],
        typer.Option(help="Estimator cosine: mean of tokens, or first position."),
    ] = "mean"
    cosine_examples: Annotated[
        int, typer.Option(min=1, help="Estimator cosine: at most this many texts of the target.")
    ] = 100

    def cosine(self) -> Cosine:
        """The estimator with these options."""
        from promptpanda.transfers.estimators import Cosine

        return Cosine(layer=self.cosine_layer, pooling=self.cosine_pooling, examples=self.cosine_examples)
