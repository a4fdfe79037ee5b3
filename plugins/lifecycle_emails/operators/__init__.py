"""The operators of the lifecycle e-mail DAGs, in the style of Airflow's providers.

Thin: they read what a run asks for, open connections, call the core, and say in a sentence what came of it.
No SQL, no SMTP.
"""

from lifecycle_emails.operators.alert import AlertOperator, MaintenanceAlertOperator
from lifecycle_emails.operators.alert_callbacks import AlertCallback
from lifecycle_emails.operators.approve_volume import ApproveVolumeOperator, RecordApprovalOperator
from lifecycle_emails.operators.check_volume import VolumeCheckOperator
from lifecycle_emails.operators.extract_cohort import ExtractCohortOperator
from lifecycle_emails.operators.filter_ledger import LedgerFilterOperator
from lifecycle_emails.operators.limit_rate import RateLimitOperator
from lifecycle_emails.operators.maintain import MaintainOperator, ProbeProvidersOperator
from lifecycle_emails.operators.operate import OperateOperator
from lifecycle_emails.operators.reconcile import ReconcileOperator
from lifecycle_emails.operators.send_batch import SendBatchOperator

__all__ = [
    "AlertCallback",
    "AlertOperator",
    "ApproveVolumeOperator",
    "ExtractCohortOperator",
    "LedgerFilterOperator",
    "MaintainOperator",
    "MaintenanceAlertOperator",
    "OperateOperator",
    "ProbeProvidersOperator",
    "RateLimitOperator",
    "ReconcileOperator",
    "RecordApprovalOperator",
    "SendBatchOperator",
    "VolumeCheckOperator",
]
