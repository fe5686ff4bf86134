# The service on Google Cloud: backend and frontend on Cloud Run behind one load balancer, Triton on GKE GPU nodes, files
# in Cloud Storage, jobs in Cloud SQL.

locals {
  name = "qsm-${var.environment}"
}

resource "google_project_service" "this" {
  for_each = toset([
    "billingbudgets", "compute", "container", "iam", "iamcredentials", "logging", "monitoring", "run",
    "secretmanager", "servicenetworking", "sqladmin", "storage",
  ])

  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}

module "network" {
  source = "./modules/network"

  name   = local.name
  region = var.region

  depends_on = [google_project_service.this]
}

module "storage" {
  source = "./modules/storage"

  name            = local.name
  project         = var.project
  region          = var.region
  retention_days  = var.retention_days
  service_account = module.services.backend_service_account
}

module "database" {
  source = "./modules/database"

  name                = local.name
  region              = var.region
  network_id          = module.network.network_id
  peering             = module.network.peering
  tier                = var.database_tier
  deletion_protection = var.deletion_protection
  reader              = module.services.backend_service_account
}

module "triton" {
  source = "./modules/triton"

  name                = local.name
  project             = var.project
  region              = var.region
  network_id          = module.network.network_id
  subnet_id           = module.network.subnet_id
  admin_cidrs         = var.cluster_admin_cidrs
  gpu                 = var.gpu
  deletion_protection = var.deletion_protection
}

module "services" {
  source = "./modules/services"

  name            = local.name
  project         = var.project
  region          = var.region
  domain          = var.domain
  allowed_cidrs   = var.allowed_cidrs
  images          = var.images
  worker          = var.worker
  oidc            = var.oidc
  network_id      = module.network.network_id
  subnet_id       = module.network.subnet_id
  triton_address  = module.triton.grpc_address
  bucket          = "${var.project}-${local.name}-scans"
  database_host   = module.database.host
  password_secret = module.database.password_secret

  rate_limit_storage_secret = var.rate_limit_storage_secret

  depends_on = [google_project_service.this]
}

# With overlays/gke, gateways and workers in the cluster have the backend's identity. The pool of identities is made with the
# cluster.
resource "google_service_account_iam_member" "workload_identity" {
  for_each = toset(["fastapi-be", "worker"])

  service_account_id = module.services.backend_service_account_name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[qsm-ai/${each.key}]"

  depends_on = [module.triton]
}

resource "google_monitoring_notification_channel" "email" {
  display_name = "${local.name} on call"
  type         = "email"
  labels       = { email_address = var.alarm_email }
}

resource "google_monitoring_alert_policy" "latency" {
  display_name          = "${local.name}: one answer in a hundred takes longer than 3 s"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]

  conditions {
    display_name = "P99 of the backend"
    condition_threshold {
      filter          = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${local.name}-backend\" AND metric.type = \"run.googleapis.com/request_latencies\""
      comparison      = "COMPARISON_GT"
      threshold_value = 3000
      duration        = "600s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_PERCENTILE_99"
        cross_series_reducer = "REDUCE_MAX"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "errors" {
  display_name          = "${local.name}: the backend answers with errors of its own"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]

  conditions {
    display_name = "5xx"
    condition_threshold {
      filter          = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${local.name}-backend\" AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class = \"5xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0.1
      duration        = "120s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_billing_budget" "month" {
  count = var.billing_account == "" ? 0 : 1

  billing_account = var.billing_account
  display_name    = local.name

  budget_filter {
    projects = ["projects/${var.project}"]
  }

  amount {
    specified_amount {
      currency_code = "USD"
      units         = tostring(var.monthly_budget_usd)
    }
  }

  threshold_rules {
    threshold_percent = 0.8
  }

  threshold_rules {
    threshold_percent = 1.0
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    monitoring_notification_channels = [google_monitoring_notification_channel.email.id]
  }
}
