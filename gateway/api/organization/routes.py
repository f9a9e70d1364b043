"""Which path of the admin API does what?"""

from collections.abc import Mapping
from typing import Final

from gateway.api.organization import (
    admin_api_keys,
    alert_deliveries,
    api_keys,
    audit_logs,
    budgets,
    costs,
    ledger_entries,
    limits,
    model_permissions,
    orphans,
    projects,
    rate_limits,
    service_accounts,
    spend_alerts,
    spend_limits,
    videos,
)
from gateway.api.parts import Handler

# In the order in which they are tried; a path is there once, with all its methods.
ORGANIZATION: Final[Mapping[str, Mapping[str, Handler]]] = {
    "/v1/organization/admin_api_keys": {
        "GET": admin_api_keys.list_,
        "POST": admin_api_keys.create,
    },
    "/v1/organization/admin_api_keys/{key_id}": {
        "GET": admin_api_keys.retrieve,
        "DELETE": admin_api_keys.delete,
    },
    "/v1/organization/projects": {"GET": projects.list_, "POST": projects.create},
    "/v1/organization/projects/{project_id}": {
        "GET": projects.retrieve,
        "POST": projects.update,
    },
    "/v1/organization/projects/{project_id}/archive": {"POST": projects.archive},
    "/v1/organization/projects/{project_id}/service_accounts": {
        "GET": service_accounts.list_,
        "POST": service_accounts.create,
    },
    "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}": {
        "GET": service_accounts.retrieve,
        "POST": service_accounts.update,
        "DELETE": service_accounts.delete,
    },
    "/v1/organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys": {
        "POST": service_accounts.create_account_key,
    },
    "/v1/organization/projects/{project_id}/api_keys": {"GET": api_keys.list_},
    "/v1/organization/projects/{project_id}/api_keys/{api_key_id}": {
        "GET": api_keys.retrieve,
        "POST": api_keys.update,
        "DELETE": api_keys.delete,
    },
    "/v1/organization/projects/{project_id}/api_keys/{api_key_id}/rotate": {
        "POST": api_keys.rotate,
    },
    "/v1/organization/projects/{project_id}/api_keys/{api_key_id}/model_permissions": {
        "GET": model_permissions.retrieve,
        "POST": model_permissions.update,
        "DELETE": model_permissions.delete,
    },
    "/v1/organization/projects/{project_id}/api_keys/{api_key_id}/limits": {
        "GET": limits.retrieve,
        "POST": limits.update,
    },
    "/v1/organization/projects/{project_id}/model_permissions": {
        "GET": model_permissions.retrieve,
        "POST": model_permissions.update,
        "DELETE": model_permissions.delete,
    },
    "/v1/organization/projects/{project_id}/limits": {
        "GET": limits.retrieve,
        "POST": limits.update,
    },
    "/v1/organization/projects/{project_id}/rate_limits": {"GET": rate_limits.list_},
    "/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}": {
        "POST": rate_limits.update,
    },
    "/v1/organization/spend_limit": {
        "GET": spend_limits.retrieve,
        "POST": spend_limits.update,
        "DELETE": spend_limits.delete,
    },
    "/v1/organization/projects/{project_id}/spend_limit": {
        "GET": spend_limits.retrieve,
        "POST": spend_limits.update,
        "DELETE": spend_limits.delete,
    },
    "/v1/organization/spend_alerts": {"GET": spend_alerts.list_, "POST": spend_alerts.create},
    "/v1/organization/spend_alerts/{alert_id}": {
        "GET": spend_alerts.retrieve,
        "POST": spend_alerts.update,
        "DELETE": spend_alerts.delete,
    },
    "/v1/organization/projects/{project_id}/spend_alerts": {
        "GET": spend_alerts.list_,
        "POST": spend_alerts.create,
    },
    "/v1/organization/projects/{project_id}/spend_alerts/{alert_id}": {
        "GET": spend_alerts.retrieve,
        "POST": spend_alerts.update,
        "DELETE": spend_alerts.delete,
    },
    "/v1/organization/projects/{project_id}/api_keys/{api_key_id}/spend_alerts": {
        "GET": spend_alerts.list_,
        "POST": spend_alerts.create,
    },
    "/v1/organization/projects/{project_id}/api_keys/{api_key_id}/spend_alerts/{alert_id}": {
        "GET": spend_alerts.retrieve,
        "POST": spend_alerts.update,
        "DELETE": spend_alerts.delete,
    },
    "/v1/organization/alert_deliveries": {"GET": alert_deliveries.list_},
    "/v1/organization/costs": {"GET": costs.retrieve},
    "/v1/organization/audit_logs": {"GET": audit_logs.list_},
    "/v1/organization/budgets": {"GET": budgets.list_, "POST": budgets.update},
    "/v1/organization/budgets/{budget_id}": {"DELETE": budgets.delete},
    "/v1/organization/orphans": {"GET": orphans.list_},
    "/v1/organization/orphans/{orphan_id}/settle": {"POST": orphans.settle},
    "/v1/organization/orphans/{orphan_id}/release": {"POST": orphans.release},
    "/v1/organization/ledger/entries": {"GET": ledger_entries.list_},
    "/v1/organization/videos": {"GET": videos.list_},
}
