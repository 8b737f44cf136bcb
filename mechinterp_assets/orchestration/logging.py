"""The console logger of this code location.

Belongs here: one short line per message on the console. Dagster's event log keeps everything.
"""

import logging

import dagster as dg


class _ShortFormatter(logging.Formatter):
    """Time and what the asset said, without run id and step on every line."""

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", None)
        message = meta.get("orig_message") if isinstance(meta, dict) else None
        return f"{self.formatTime(record, '%H:%M:%S')} {message or record.getMessage()}"


@dg.logger(config_schema={"log_level": dg.Field(str, default_value="INFO")})
def short_console_logger(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Messages of assets at INFO and above."""
    logger = logging.getLogger("mechinterp")
    logger.setLevel(init_context.logger_config["log_level"])
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_ShortFormatter())
        logger.addHandler(handler)
    return logger
