"""The console logger of this code location.

Belongs here: one short line per message on the console. Dagster's event log keeps everything.
"""

import logging
import sys

import dagster as dg

NAME = "mechinterp"


class _ShortFormatter(logging.Formatter):
    """Time and what the asset said, without run id and step on every line."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", None)
        message = meta.get("orig_message") if isinstance(meta, dict) else None
        return f"{self.formatTime(record, '%H:%M:%S')} {message or record.getMessage()}"


class _Console(logging.Handler):
    """Lines on whatever is standard error when they are written."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def console_logger(level: str = "INFO") -> logging.Logger:
    """The logger of this process: short lines on standard error, at `level` and above."""
    logger = logging.getLogger(NAME)
    logger.setLevel(level)
    logger.propagate = False
    if not logger.handlers:
        handler = _Console()
        handler.setFormatter(_ShortFormatter())
        logger.addHandler(handler)
    return logger


@dg.logger(config_schema={"log_level": dg.Field(str, default_value="INFO")})
def short_console_logger(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Messages of assets at INFO and above."""
    return console_logger(init_context.logger_config["log_level"])
