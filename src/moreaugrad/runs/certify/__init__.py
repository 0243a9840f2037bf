"""Certificates of pictures: how much of a map's top stays under any perturbation."""

from moreaugrad.runs.certify.cost import estimate_certify
from moreaugrad.runs.certify.plan import CertifyPlan, PreparedCertify, prepare_certify
from moreaugrad.runs.certify.work import CertifyOutcome, run_certify

__all__ = [
    "CertifyOutcome",
    "CertifyPlan",
    "PreparedCertify",
    "estimate_certify",
    "prepare_certify",
    "run_certify",
]
