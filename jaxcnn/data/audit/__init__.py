"""Find copies of images in any data set, and report them."""

from jaxcnn.data.audit.collection import Collection, read_collection
from jaxcnn.data.audit.contact_sheet import MOST_PAIRS, contact_sheet
from jaxcnn.data.audit.findings import Audit, CrossingPair, audit
from jaxcnn.data.audit.report import audit_document, table

__all__ = [
    "MOST_PAIRS",
    "Audit",
    "Collection",
    "CrossingPair",
    "audit",
    "audit_document",
    "contact_sheet",
    "read_collection",
    "table",
]
