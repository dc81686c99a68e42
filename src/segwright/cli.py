"""The command line: each sub-command is a verb of the Python API with its flags. Floor 7.

No torch is imported before a verb runs, so that `segwright --help` answers at once.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from segwright import __version__
from segwright.errors import SegwrightError, Stopped, counted
from segwright.launch import is_main

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
nnunet = typer.Typer(no_args_is_help=True, help="Inside nnU-Net; nnUNetv2_train_segformer trains.")
app.add_typer(nnunet, name="nnunet")
console = Console(quiet=not is_main())
errors = Console(stderr=True)
MOST_SHOWN = 10
"""Lines of one kind."""

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Anything else: section.key=value.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file.")]
Model = Annotated[
    str | None, typer.Option("--model", help="Whole model: segformer_lite, segformer_b0 ... segformer_b5.")
]
EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="segformer_b0, mobilenet_v3_small or any timm name.")
]
Pretrained = Annotated[
    str | None, typer.Option("--pretrained", help="1, 0, imagenet, ade20k, a tag of timm's, a file or a folder.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Folder with train/, valid/ and test/.")]
Weights = Annotated[Path, typer.Option("--weights", help="best.pth of a run, or the run's folder.")]


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Segmentation models for your own images: check, train, evaluate, infer."""


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def check(
    data: Annotated[Path | None, typer.Argument(help="Folder with train/, valid/ and test/.")] = None,
    overrides: Overrides = None,
    config: ConfigFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Annotations, headers, ends of files; no pixels.")] = False,
    json: Annotated[str | None, typer.Option("--json", help="Write the report as JSON to a file; - prints it.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures.")] = None,
    fix: Annotated[Path | None, typer.Option("--fix", help="Write a mended copy into this new folder.")] = None,
    show_augment: Annotated[
        Path | None, typer.Option("--show-augment", help="Draw augmented training samples into this PNG.")
    ] = None,
) -> None:
    """Find what is wrong with the data. Ends with 1 where there are errors; with --fix, where they are left in the
    copy."""
    from segwright.files import write_text
    from segwright.verbs.check import check as run
    from segwright.verbs.findings import print_findings, summary_table

    words = list(overrides or [])
    if data is not None and "=" in str(data) and not data.exists():
        words, data = [str(data), *words], None
    report = run(data, config, overrides=words, quick=quick, html=html, fix=fix)
    if show_augment:
        from segwright.verbs.augment_preview import show_augment as show
        from segwright.verbs.settings import gather

        show(gather(config, {"data.root": data and str(data)}, words), show_augment)
    if json == "-":
        print(report.json())
    else:
        summary_table(report.summary, console)
        print_findings(report.findings, console)
    if json and json != "-":
        write_text(json, report.json())
    if fix:
        for one in report.fixes[:MOST_SHOWN]:
            errors.print(f"{one.file}: {one.action}", markup=False, highlight=False, soft_wrap=True)
        number = counted(len(report.fixes), "fix")
        errors.print(
            f"{number} in the copy {fix} (images and masks in folders), listed in fixes.json",
            markup=False,
            soft_wrap=True,
        )
        errors.print(f"{counted(len(report.left or ()), 'error')} left in the copy", markup=False)
        if report.left:
            print_findings(report.left, errors)
    raise typer.Exit(1 if (report.left if fix else report.errors) else 0)


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="The data set's folder.")],
    to: Annotated[str, typer.Option("--to", help="folder, coco or nnunet.")],
    output: Annotated[Path, typer.Option("--output", help="New folder; for nnunet, DatasetNNN_Name.")],
    overrides: Overrides = None,
    source: Annotated[str | None, typer.Option("--from", help="As data.name; else as it looks.")] = None,
    config: ConfigFile = None,
) -> None:
    """Write a data set in another layout, its masks unchanged; prints the config that reads it."""
    from segwright.verbs.convert import convert as run

    done = run(data, output, to, reader=source, config=config, overrides=overrides or [])
    console.print(f"{done.images} images in {done.folder}; in a config:", soft_wrap=True, markup=False)
    print(done.yaml(), end="")


@app.command()
def train(
    overrides: Overrides = None,
    config: ConfigFile = None,
    data: Data = None,
    model: Model = None,
    encoder: EncoderName = None,
    pretrained: Pretrained = None,
    freeze_epochs: Annotated[
        int | None, typer.Option("--freeze-epochs", help="First epochs with a frozen encoder.")
    ] = None,
    lr_head: Annotated[float | None, typer.Option("--lr-head", help="Learning rate of the head.")] = None,
    lr_encoder: Annotated[float | None, typer.Option("--lr-encoder", help="Learning rate of the encoder.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Decides initial weights, order, augmentation.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="The run's folder; else runs/<model>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last.pth.")] = False,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Resume if the folder holds a run, else begin: for jobs that restart.")
    ] = False,
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True)] = 0,  # deepspeed's launcher gives it
    resume_anyway: Annotated[
        bool, typer.Option("--resume-anyway", help="The same, though config or data changed; says what did.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Log the check's errors and train; files that cannot be used still stop it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Empty the folder if it holds a run.")] = False,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Refuse weights that are not free for commercial use.")
    ] = False,
) -> None:
    """Train a model; everything of the run lies in one folder."""
    from segwright.verbs.train import train as run

    flags = _model_flags(model, encoder, pretrained, data) | {
        "train.freeze_epochs": freeze_epochs,
        "optim.lr_head": lr_head,
        "optim.lr_encoder": lr_encoder,
        "train.epochs": epochs,
        "train.seed": seed,
        "run.output": output and str(output),
        "run.overwrite": overwrite or None,
        "run.commercial": commercial or None,
    }
    going_on = {"resume": resume, "resume_anyway": resume_anyway, "go_on": go_on}
    done = run(config, flags=flags, overrides=overrides or [], force=force, **going_on)
    console.print(f"best weights: {done.best}  (validation IoU {done.best_iou:.4f})", soft_wrap=True)


@app.command()
def evaluate(
    weights: Weights,
    overrides: Overrides = None,
    config: ConfigFile = None,
    data: Data = None,
    model: Model = None,
    encoder: EncoderName = None,
    pretrained: Pretrained = None,
    split: Annotated[str, typer.Option("--split", help="Which split.")] = "test",
    threshold: Annotated[str | None, typer.Option("--threshold", help="A number, or auto: the best on valid.")] = None,
    output: Annotated[
        Path, typer.Option("--output", help="Folder for metrics_<split>.json, its page and pictures.")
    ] = Path("outputs"),
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw the confusion matrix, best and worst images.")
    ] = True,
) -> None:
    """Score trained weights at the images' original size."""
    from segwright.verbs.evaluate import evaluate as run
    from segwright.verbs.findings import metrics_table

    flags = _model_flags(model, encoder, pretrained, data)
    words = overrides or []
    metrics = run(
        weights,
        config,
        flags=flags,
        overrides=words,
        split=split,
        threshold=threshold,
        output=output,
        pictures=pictures,
    )
    metrics_table(metrics, console)


@app.command()
def infer(
    weights: Weights,
    input: Annotated[str, typer.Option("--input", help="An image, a folder, or a pattern in quotes.")],
    overrides: Overrides = None,
    config: ConfigFile = None,
    model: Model = None,
    encoder: EncoderName = None,
    pretrained: Pretrained = None,
    save: Annotated[Path, typer.Option("--save", help="Folder for masks and overlays.")] = Path("outputs/infer"),
) -> None:
    """Write a mask and an overlay for every image. Ends with 1 where a file could not be read."""
    from segwright.verbs.infer import infer as run

    flags = _model_flags(model, encoder, pretrained, None)
    result = run(weights, input, save, config, flags=flags, overrides=overrides or [])
    lost = f", {counted(len(result.failed), 'file')} could not be read" if result.failed else ""
    console.print(f"{counted(len(result.written), 'mask')} in {result.folder}{lost}", soft_wrap=True)
    raise typer.Exit(1 if result.failed else 0)


@app.command()
def submission(
    weights: Weights,
    overrides: Overrides = None,
    input: Annotated[
        Path | None, typer.Option("--input", help="Folder of the test images; else stream-1-test of the data.")
    ] = None,
    config: ConfigFile = None,
    data: Data = None,
    output: Annotated[Path, typer.Option("--output", help="The archive to write.")] = Path("submission.zip"),
    own_data: Annotated[
        bool, typer.Option("--own-data", help="Not the challenge's images: any number, size, names and colours.")
    ] = False,
) -> None:
    """Write the zip that the SPARK challenge takes; it is read back and checked against the rules before it stands."""
    from segwright.verbs.submission import OWN_DATA, Rules
    from segwright.verbs.submission import submission as run

    rules = OWN_DATA if own_data else Rules()
    flags = {"data.root": data and str(data)}
    done = run(weights, input, output, config, flags=flags, overrides=overrides or [], rules=rules)
    console.print(f"{done.images} masks in {done.path}, read back and right", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished, evaluated runs.")],
    split: Annotated[
        str | None, typer.Option("--split", help="Which; else test, or valid where not all have that.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder for the tables and the page.")] = Path("comparison"),
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw what each run makes of some images.")
    ] = True,
) -> None:
    """Say which run is better, and whether the difference is real: tables, a page, a paired bootstrap over images."""
    from segwright.verbs.compare import compare as run
    from segwright.verbs.compare_report import show

    show(run(runs, split=split, output=output, pictures=pictures), console)


@app.command()
def export(
    weights: Weights,
    output: Annotated[Path, typer.Option("--output", help="Folder to write.")],
    format: Annotated[
        str, typer.Option("--format", help="hf: a folder for transformers; merged: LoRA in the weights; onnx.")
    ] = "hf",
) -> None:
    """Write trained weights for another library, and a certificate of what was compared with it."""
    from segwright.verbs.export import export as run

    done = run(weights, output, format)
    console.print(f"written: {done.folder}", soft_wrap=True)


@app.command()
def bench(
    encoder: Annotated[str, typer.Option("--encoder", help="As in train.")] = "segformer_b0",
    head: Annotated[str, typer.Option("--head", help="As head.name.")] = "segformer",
    width: Annotated[int | None, typer.Option("--width", help="As head.width; else the published one.")] = None,
    classes: Annotated[int, typer.Option("--classes", help="Number of classes.")] = 19,
    size: Annotated[int, typer.Option("--size", help="Side of the square image in pixels.")] = 512,
    batch: Annotated[int, typer.Option("--batch", help="Images a step.")] = 1,
    mode: Annotated[
        str, typer.Option("--mode", help="infer, masks (class ids at the image's size) or train.")
    ] = "infer",
    against: Annotated[str, typer.Option("--against", help="Peers: transformers,smp.")] = "",
    amp: Annotated[bool, typer.Option("--amp", help="Mixed precision for all.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", help="Turns that every model gets.")] = 10,
    matrix: Annotated[bool, typer.Option("--matrix", help="Several encoders and heads instead of one.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, or else the GPU if there is one.")] = None,
    plain_memory: Annotated[bool, typer.Option("--plain-memory", help="Leave glibc's allocator as it is.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="For the peers' models too.")] = False,
    own_defaults: Annotated[
        bool, typer.Option("--own-defaults", help="Each library as its users get it, in a process of its own.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Every model a second time, by torch.compile.")] = False,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure the peak memory.")] = True,
    output: Annotated[Path, typer.Option("--output", help="Folder for the tables.")] = Path("benchmarks/results"),
) -> None:
    """Measure images per second and memory of an encoder with a head, beside the same model of other libraries."""
    from segwright.verbs.bench import bench as run
    from segwright.verbs.bench import bench_defaults, bench_matrix
    from segwright.verbs.bench_report import bench_table
    from segwright.verbs.peers import Design
    from segwright.verbs.workload import Load

    design, keep_memory = Design(encoder, head, width, classes), not plain_memory
    load = Load(design, size, batch, mode, amp, device, keep_memory, channels_last, own_defaults, compile)
    peers = [name.strip() for name in against.split(",") if name.strip()]
    if matrix:
        result = bench_matrix(load, against=peers, rounds=rounds, memory=memory, output=output)
    elif own_defaults:
        result = bench_defaults(load, against=peers, rounds=rounds, output=output)
    else:
        result = run([load], peers, rounds, memory, output)
    bench_table(result, console)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", help="Folder for the data and the run.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="Other pictures, other weights.")] = 0,
) -> None:
    """Paint crack photographs, check them, train, evaluate, infer: all of it in a few minutes on a CPU."""
    from segwright.verbs.demo import demo as run

    run(output, seed=seed)


@nnunet.command("path")
def nnunet_path() -> None:
    """Print the folder that the variable nnUNet_extTrainer must name, so that nnU-Net finds our trainers."""
    from segwright.nnunet import trainer_folder

    print(trainer_folder())


def _model_flags(model: str | None, encoder: str | None, pretrained: str | None, data: Path | None) -> dict[str, Any]:
    return {
        "model.name": model,
        "encoder.name": encoder,
        "encoder.pretrained": pretrained,
        "data.root": data and str(data),
    }


def main(arguments: list[str] | None = None) -> None:
    """The `segwright` command. A user's error is one message and exit status 1; any other one is ours."""
    plain = logging.StreamHandler()  # a file or pipe gets whole lines, not a terminal's width of them
    handler = RichHandler(console=errors, show_path=False, show_time=False) if errors.is_terminal else plain
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("segwright").setLevel(logging.INFO if is_main() else logging.ERROR)
    try:
        app(args=arguments, prog_name="segwright")
    except SegwrightError as error:
        if is_main() or not isinstance(error, Stopped):  # which all processes have to say
            errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        _end(error.exit_status)
    except SystemExit as ended:
        _end(ended.code)


def _end(status: Any) -> None:
    """As sys.exit; one of several processes ends at once."""
    if isinstance(status, int) and (processes := sys.modules.get("segwright.engine.processes")):
        processes.end_at_once(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
