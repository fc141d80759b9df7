"""Services that other systems' keys are in."""

from __future__ import annotations

from tests.services.aws import aws_environment, moto
from tests.services.openbao import openbao, own_openbao

__all__ = ["aws_environment", "moto", "openbao", "own_openbao"]
