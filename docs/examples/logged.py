import logging.config

from hello import application

__all__ = ["application"]

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "access": {
                "format": '{{"client": "{access[client]}", "path": "{access[path]}", "status": {access[status]}}}',
                "style": "{",
            }
        },
        "handlers": {"access": {"class": "logging.StreamHandler", "formatter": "access"}},
        "loggers": {"daphne_ng.access": {"level": "INFO", "handlers": ["access"], "propagate": False}},
    }
)
