"""The settings: `Config`, and what each of its fields says of itself."""

from daphne_ng.config.config import Config, settings
from daphne_ng.config.setting import Setting

__all__ = ["Config", "Setting", "settings"]
