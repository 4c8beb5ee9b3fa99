"""The killable processes behind `reward.pool`."""
