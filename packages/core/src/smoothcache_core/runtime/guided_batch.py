"""The proof that a batch is a guided one: two halves of the same latents."""

from torch import Tensor

from smoothcache_core.runtime.later import Later


class GuidedBatch:
    """Says whether the halves of a run's batches are the same latents.

    At the first evaluation two samples may begin with the same noise, so the latents of a later one
    decide. They are compared at the evaluations before the answer is needed; it is read once in a
    run, and again when the layout of the batch has changed.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new run begins, or the layout changed: nothing is known."""
        self._known: bool | None = None
        self._compared: Later | None = None

    def see(self, evaluation: int, latent: Tensor | None) -> None:
        """Compare the halves of a latent, (rows, ...), if it can tell and nothing is known yet.

        Args:
            evaluation: The evaluation that the latent belongs to.
            latent: As the denoiser is given it; None if its numbers cannot be looked at, then the
                batch is believed to be guided.
        """
        if latent is None:
            self._known = True
            return
        rows = len(latent) if latent.dim() else 0
        if self._known is not None or evaluation == 0 or rows % 2 or not rows:
            return
        first, second = latent.detach()[: rows // 2], latent.detach()[rows // 2 :]
        # latents that hold NaN are unlike themselves, and belong to no good run
        self._compared = Later((first == second).all().float().reshape(1))

    def is_guided(self) -> bool:
        """Return whether the halves are the same, waiting for the device the first time."""
        if self._known is None:
            self._known = self._compared is not None and bool(self._compared.read()[0])
            self._compared = None
        return self._known
