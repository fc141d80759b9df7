"""The application as each of several processes makes it for itself."""

from __future__ import annotations

import os

from fastapi import FastAPI

from keystead.config.service import load_service
from keystead.server.app import create_app


def new_app() -> FastAPI:
    """Return the service by the settings of the environment."""
    return create_app(load_service(), worker=str(os.getpid()))
