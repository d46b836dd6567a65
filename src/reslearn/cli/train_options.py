"""The arguments and options of `reslearn train`."""

from pathlib import Path
from typing import Annotated

import typer

from reslearn.cli.options import DATA, MACHINE, OUTPUT, RECIPE, RUN

DataArgument = Annotated[
    str | None,
    typer.Argument(
        help="A name of `reslearn list data`, a folder of images, or a CSV file of path and label. "
        "Default: the recipe's data."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE, help="Train this network, a name of `reslearn list models`."
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        rich_help_panel=RECIPE,
        help="Start from this recipe: a name of `reslearn list recipes`, a .toml file, or the "
        "recipe.json of a run. Default: photos for a folder of images, digits for the digits, "
        "cifar-paper for other data.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel=RECIPE,
        help="Set a value of the recipe, as in optimizer.lr=0.2. May be repeated.",
    ),
]
EpochsOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Train for this many epochs, and move the milestones in proportion. "
        "Short for --set schedule.duration='N epochs'.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Finish within this time, which includes loading and evaluation. The speed of the "
        "machine is measured first. Default: 30 for a folder of images without a recipe; else no "
        "limit.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        rich_help_panel=RECIPE,
        help="Use batches of this many images. Short for --set train.batch_size=N.",
    ),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Use this learning rate. Short for --set optimizer.lr=X.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(rich_help_panel=RECIPE, help="Use this seed. Short for --set seed=N."),
]
InitOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RECIPE,
        help="Start from these weights: a file, a folder of save_pretrained, reslearn:NAME, "
        "torchvision:NAME, timm:NAME or a URL. `none`: start from new weights.",
    ),
]
InitEntryOption = Annotated[
    str | None,
    typer.Option(
        "--entry",
        rich_help_panel=RECIPE,
        help="With --init, the network to take if the file holds several: a table such as "
        "state_dict_ema, or the beginning of names such as state_dict:module.encoder_q.",
    ),
]
PartialOption = Annotated[
    bool,
    typer.Option(
        "--partial",
        rich_help_panel=RECIPE,
        help="With --init, skip tensors that do not match, and list them.",
    ),
]
DownloadOption = Annotated[
    bool,
    typer.Option("--download", rich_help_panel=DATA, help="Download the data set if missing."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=RUN,
        help="Write the run to this folder. Default: runs/NAME, from model, data and recipe.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        rich_help_panel=RUN,
        help="Continue the run in the folder where it stopped, or start it if there is none.",
    ),
]
TensorBoardOption = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        rich_help_panel=RUN,
        help="Write TensorBoard files into the run folder too.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--workers",
        min=0,
        rich_help_panel=MACHINE,
        help="Read images in this many processes. Default: all cores.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        rich_help_panel=OUTPUT,
        help="Report the memory and minutes that the training needs, and write nothing.",
    ),
]
