"""Every so many steps, epochs or seconds: AReaL's counter, whose counts outlive a restart and whose settings do not."""

from __future__ import annotations

from typing import Any

from areal.utils.timeutil import EpochStepTimeFreqCtl


class Frequency(EpochStepTimeFreqCtl):
    """AReaL restores the frequencies themselves too: what the configuration says now would not count on a resume.

    `is_due_now`: the next question is answered with yes.
    """

    is_due_now = False

    @classmethod
    def of(cls, config: Any) -> Frequency:
        """By `freq_epochs`, `freq_steps` and `freq_secs` of a section of the configuration."""
        return cls(freq_epoch=config.freq_epochs, freq_step=config.freq_steps, freq_sec=config.freq_secs)

    def check(self, epochs: int, steps: int) -> bool:
        is_due = super().check(epochs, steps)
        is_due, self.is_due_now = is_due or self.is_due_now, False
        return is_due

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.epoch_ctl.frequency_steps = self.freq_epoch
        self.step_ctl.frequency_steps = self.freq_step
        self.time_ctl.frequency_seconds = self.freq_sec
