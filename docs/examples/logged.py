import json
import logging.config

from hello import application

__all__ = ["JsonLines", "application"]


class JsonLines(logging.Formatter):
    def format(self, record):
        fields = getattr(record, "access", None) or {"message": record.getMessage()}
        return json.dumps({"time": self.formatTime(record), **fields})


logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"access": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
        "loggers": {"daphne_ng.access": {"level": "INFO", "handlers": ["access"], "propagate": False}},
    }
)
