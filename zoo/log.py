"""What a training run tells while it trains: a line for each epoch, history.csv, TensorBoard."""

import csv
import time

import numpy as np

from tfsparse import optional
from tfsparse.errors import UsageError
from tfsparse.files import replacing
from tfsparse.timing import duration


def _percent(share):
    return f"{100 * share:.1f}"


# {entry of a row: (title of its column, function from the entry to text)}
_COLUMNS = {
    "loss": ("loss", "{:.3f}".format),
    "train_clean_accuracy": ("train %", _percent),
    "train_adversarial_accuracy": ("attacked", _percent),
    "validation_clean_accuracy": ("validation %", _percent),
    "validation_robust_accuracy": ("attacked", _percent),
    "density": ("density %", lambda share: f"{100 * share:.2f}"),
    "seconds": ("time", duration),
}


class Log:
    """Prints each epoch and writes it to history.csv and tensorboard/.

    Without TensorFlow, which writes the latter, that is done when the run goes on where it is.

    Args:
        workdir: pathlib.Path of the run's folder.
        epochs: of the whole run.
        history: list of dicts, one for each epoch that is finished.
    """

    def __init__(self, workdir, epochs, history=()):
        self._workdir, self._epochs = workdir, epochs
        self._seconds, self._last = [], time.perf_counter()
        self._tensorboard = None
        if optional.are_installed("tensorflow", "tensorboard"):
            import tensorflow as tf

            folder = workdir / "tensorboard"
            is_new = not folder.exists()
            self._tensorboard = tf.summary.create_file_writer(str(folder))
            for row in history if is_new else ():
                self._write_scalars(row)

    def write(self, history):
        """Logs the last row of `history`, a list of dicts, one for each epoch."""
        row = history[-1]
        print("\n".join(self._lines(row)), flush=True)
        path = self._workdir / "history.csv"
        with replacing(path) as partial, open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, history[0].keys())
            writer.writeheader()
            writer.writerows(history)
        if self._tensorboard:
            self._write_scalars(row)

    def _lines(self, row):
        """Returns the line of an epoch, below a header if it is the first line, a list of str."""
        now = time.perf_counter()
        self._seconds.append(now - self._last)  # with validation, which `row` leaves out
        self._last = now
        # The median: the first epoch takes longer, as functions are compiled.
        left = float(np.median(self._seconds)) * (self._epochs - row["epoch"])
        columns = {name: column for name, column in _COLUMNS.items() if name in row}
        cells = [(title, text(row[name])) for name, (title, text) in columns.items()]
        cells.append(("time left", duration(left)))
        width = len(f"epoch {self._epochs}/{self._epochs}")
        lines = ["", f"epoch {row['epoch']}/{self._epochs}"]
        lines = [line.ljust(width) for line in lines]
        for pair in cells:
            size = max(len(pair[0]), 6)
            lines = [f"{line}  {cell:>{size}}" for line, cell in zip(lines, pair, strict=True)]
        return lines if len(self._seconds) == 1 else lines[1:]

    def _write_scalars(self, row):
        import tensorflow as tf

        try:
            with self._tensorboard.as_default(step=row["epoch"]):
                for name, value in row.items():
                    tf.summary.scalar(name, value)
            self._tensorboard.flush()
        except tf.errors.OpError as error:
            raise UsageError(
                f"Cannot write to {self._workdir / 'tensorboard'}: {error.message}. The same "
                "command continues this run once there is space."
            ) from error
