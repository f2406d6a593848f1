"""The tables of report.md and of the README, from the files in docs/results."""

from statistics import median

from docs.tables import lines, over, plain, print_table, with_half_width, with_interval

UNET, SIMPLECNN = "U-Net classifier", "SimpleCNN"
NEAREST, HOG = "copying the label of the most similar image", "histograms of gradients, linear"
MODELS = {"nearest-neighbour": NEAREST, "hog": HOG, "simplecnn": SIMPLECNN, "unet": UNET}
TRACES = ("resolution", "compression", "border", "texture", "sequence", "source")
SEGMENTED = "runs/folds/1-fold=1"
STARTS = {"weights": "stand-in", SEGMENTED: "own run", "random": "random"}
PARTS = ("accuracy", "accuracy_copies", "accuracy_unseen")
ENSEMBLE = ("f1_macro", "f1_weighted", "accuracy")


def summary() -> None:
    """Scores of the networks under both protocols, beside nearest neighbours."""
    head = ("network", "protocol", "seeds", "macro F1", "weighted F1", "accuracy")
    rows = [
        (SIMPLECNN, "official", "5", *_seeds("simplecnn-official-seeds.csv"), _accuracy("simplecnn, official")),
        (f"{UNET}, all layers trained from scratch, 20 epochs", "official", "5", *_seeds("unet-official-seeds.csv"),
         _accuracy("unet, official")),
        ("the same", "leak-free", "5", *_seeds("unet-leak-free-seeds.csv"), _accuracy("unet, leak-free")),
        ("the ensemble of these five", "leak-free", "5",
         *(over(lines("unet-ensemble.json", run="ensemble of 5"), column) for column in ENSEMBLE)),
        ("the same, 12 epochs", "leak-free", "2", *_models("unet-random.csv"), "–"),
        ("the same, 12 epochs, from the stand-in's weights", "leak-free", "3", *_seeds("unet-pretrained-seeds.csv"),
         "–"),
        *((f"{UNET}, half as wide, {size}x{size} pixels, 30 epochs", "leak-free", "2",
           *(over(lines(f"unet-{size}.json"), column) for column in ENSEMBLE)) for size in (96, 128)),
        ("the reference project's SimpleCNN, U-Net classifier, from their confusion matrices", "official", "1", "–",
         *(over(lines("reference.csv"), column) for column in ("f1_weighted", "accuracy"))),
    ]  # fmt: skip
    for protocol in ("official", "leak-free"):
        (nearest,) = lines("baselines.csv", baseline="nearest-neighbour", protocol=protocol)
        scores = (plain(nearest, column) for column in ("f1_macro", "f1_weighted", "accuracy"))
        rows.append((NEAREST, protocol, "–", *scores))
    print_table(head, rows, right=(2,))


def _seeds(name: str) -> tuple[str, ...]:
    (line,) = lines(name)
    return tuple(with_half_width(line, column) for column in ("test_f1_macro", "test_f1_weighted"))


def _models(name: str) -> tuple[str, ...]:
    return tuple(over(lines(name), column) for column in ("test_f1_macro", "test_f1_weighted"))


def _accuracy(models: str, part: str = "accuracy") -> str:
    return over(lines("unseen.csv", models=models), part)


def memory_in_short() -> None:
    """Accuracy of the U-Nets on test images with and without a copy in Training, in percent."""
    rows = []
    for text, protocol in (("with the copies (official)", "official"), ("without the copies (leak-free)", "leak-free")):
        found = lines("unseen.csv", models=f"unet, {protocol}")
        means = (sum(float(line[part]) for line in found) / len(found) for part in PARTS[1:])
        rows.append((text, *(f"{value:.0%}" for value in means)))
    head = ("trained", "on the 259 test images with copies in Training", "on the other 135")
    print_table(head, rows, right=(1, 2))


def baselines() -> None:
    """Scores of the baselines, with intervals."""
    rows = []
    for protocol in ("official", "leak-free"):
        for name in ("nearest-neighbour", "hog"):
            (line,) = lines("baselines.csv", baseline=name, protocol=protocol)
            scores = (with_interval(line, column) for column in ("accuracy", "f1_macro", "f1_weighted"))
            rows.append((protocol, MODELS[name], *scores))
    print_table(("protocol", "baseline", "accuracy", "macro F1", "weighted F1"), rows)


def memory() -> None:
    """Accuracy of all models on test images with and without a copy in Training."""
    rows = []
    for models in dict.fromkeys(line["models"] for line in lines("unseen.csv")):
        name, protocol = models.split(", ")
        count = len(lines("unseen.csv", models=models))
        text = MODELS[name] if count == 1 else f"{MODELS[name]}, {count} seeds"
        rows.append((text, protocol, *(_accuracy(models, part) for part in PARTS)))
    print_table(("", "protocol", "all 394", "the 259 with copies in Training", "the other 135"), rows)


def transfer() -> None:
    """Frozen encoders, the stand-in and random ones."""
    columns = ("train_f1_macro", "validation_f1_macro", "test_f1_macro", "test_f1_weighted")
    rows = [
        (protocol, text, *(over(lines(f"transfer-{protocol}.csv", encoder=encoder), column) for column in columns))
        for protocol in ("leak-free", "official")
        for text, encoder in (("stand-in", "weights"), ("random", "random"))
    ]
    head = ("protocol", "encoder", "training macro F1", "validation macro F1", "test macro F1", "test weighted F1")
    print_table(head, rows)


def what_learns() -> None:
    """From a linear head to the whole network."""
    rows = []
    for text, encoder, *files in (
        ("a linear head on pooled features", "weights", "head.csv"),
        ("bottleneck and head, 4 epochs (above)", "weights", "transfer-leak-free.csv"),
        ("everything, 12 epochs, `RECIPE`", "weights", "unet-pretrained.csv", "unet-random.csv"),
        ("a linear head, half the width", SEGMENTED, "segmented-head.csv"),
        ("everything, 12 epochs, `RECIPE`, half the width", SEGMENTED, "segmented-whole.csv"),
    ):
        for name, start in ((files[0], encoder), (files[-1], "random")):
            found = lines(name, encoder=start)
            scores = (over(found, f"{split}_f1_macro") for split in ("validation", "test"))
            rows.append(("" if start == "random" else text, STARTS[start], str(len(found)), *scores))
    print_table(("what learns", "encoder", "seeds", "validation", "test"), rows, right=(2,))


def another_source() -> None:
    """How well networks tell slices with a tumour from slices without, at home and in another data set."""
    home = lines("source.csv", augment="brain-mri")
    abroad, native = lines("source-lgg.json", augment="brain-mri"), lines("lgg-folds.json")
    unets = lines("unet-lgg.json")
    rows = [
        ("this data set", f"{SIMPLECNN}, {len(home)} seeds",
         over(lines("source-validation.json", augment="brain-mri"), "auc_no"), over(abroad, "auc_no"),
         over(abroad, "f1_glioma")),
        ("this data set", f"{UNET}, {len(unets)} seeds", over(lines("unet-validation.json"), "auc_no"),
         over(unets, "auc_no"), over(unets, "f1_glioma")),
        ("80 patients of the other", f"{SIMPLECNN}, {len(native)} folds", "–", over(native, "auc_no"),
         over(native, "f1_glioma")),
    ]  # fmt: skip
    head = ("trained on", "networks", "validation images, ROC AUC", "the other data set, ROC AUC", "F1 of glioma")
    print_table(head, rows)


def source() -> None:
    """What augmentations that hide the source of a scan are worth."""
    rows = []
    for augment in ("brain-mri", *(f"any-{trace}" for trace in TRACES)):
        found, abroad = (lines(name, augment=augment) for name in ("source.csv", "source-lgg.json"))
        rows.append((f"`{augment}`", str(len(found)), over(found, "train_f1_macro"), over(found, "validation_f1_macro"),
                     over(abroad, "auc_no"), over(found, "test_f1_macro")))  # fmt: skip
    head = ("`--augment`", "seeds", "training", "validation", "other data set, ROC AUC", "test")
    print_table(head, rows, right=(1,))


def segmentation() -> None:
    """Dice by patient in five folds, beside what is known of other networks."""
    rows = []
    for size, name in (
        ("64x64", "segmentation"),
        ("96x96", "segmentation-96"),
        ("96x96 and 20 epochs more", "segmentation-again"),
    ):
        for text, kind in (("as predicted", "patients"), ("largest component", "largest")):
            found = lines(f"{name}-{kind}.csv")
            middle = median(float(line["dice"]) for line in found)
            rows.append((f"five folds, {size}, {text}", "100", over(found, "dice"), f"{middle:.3f}"))
    rows.append(("the stand-in at 128x128, largest component", "10 others", "0.753", "0.835"))
    rows.append(("the hub's network at 256x256, chosen on these ten, largest component", "10 others", "0.91", "0.92"))
    print_table(("network", "patients", "mean", "median"), rows)


def readme() -> None:
    """The README's table."""
    column = "test_f1_weighted"
    (simplecnn,), (unet,), (leak_free,) = map(
        lines, ("simplecnn-official-seeds.csv", "unet-official-seeds.csv", "unet-leak-free-seeds.csv")
    )
    nearest = (
        over(lines("baselines.csv", baseline="nearest-neighbour", protocol=protocol), "f1_weighted")
        for protocol in ("official", "leak-free")
    )
    rows = [
        ("the reference project's SimpleCNN, U-Net classifier", over(lines("reference.csv"), "f1_weighted"), "–"),
        (f"{SIMPLECNN}, 5 seeds", with_half_width(simplecnn, column), "–"),
        (f"{UNET}, all of it trained, 5 seeds", with_half_width(unet, column), with_half_width(leak_free, column)),
        (NEAREST, *nearest),
    ]
    print_table(("test images, weighted F1", "published split", "without the copies"), rows)
