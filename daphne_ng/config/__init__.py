"""The settings: `Config`, and what each of its fields knows of itself."""

from daphne_ng.config.config import Config, check_alone, settings
from daphne_ng.config.setting import Setting

__all__ = ["Config", "Setting", "check_alone", "settings"]
