# Backend and frontend on Cloud Run, reachable through the load balancer only; workers, which nobody reaches.

data "google_project" "this" {
  project_id = var.project
}

locals {
  data = {
    QSM_TRITON_URL   = var.triton_address
    QSM_STORAGE_URL  = "gs://${var.bucket}/objects"
    QSM_DATABASE_URL = "postgresql+psycopg://qsm@${var.database_host}:5432/qsm?sslmode=require"
  }
  access = merge({ QSM_ACCESS = var.oidc == null ? "keys" : "keys,oidc" }, var.oidc == null ? {} : {
    QSM_OIDC_ISSUER        = var.oidc.issuer
    QSM_OIDC_AUDIENCE      = var.oidc.audience
    QSM_OIDC_USER_ROLE     = var.oidc.user_role
    QSM_OIDC_EMAIL_DOMAINS = join(",", var.oidc.email_domains)
  })

  tiers = {
    backend = {
      image  = var.images.backend
      port   = 8000
      health = "/healthz"
      cpu    = "2"
      memory = "8Gi"
      min    = 1
      max    = 6
      # Old files are swept whether somebody asks or not.
      always_on = true
      timeout   = "900s"
      sticky    = false
      environment = merge(local.data, local.access, {
        QSM_WORKERS      = "0"
        QSM_CORS_ORIGINS = "https://${var.domain}"
      })
      # PGPASSWORD is read by the PostgreSQL client library itself, so that no URL holds a password. The other address may
      # hold one.
      secrets = merge(
        { PGPASSWORD = var.password_secret },
        var.rate_limit_storage_secret == "" ? {} : { QSM_RATE_LIMIT_STORAGE = var.rate_limit_storage_secret },
      )
    }
    frontend = {
      image     = var.images.frontend
      port      = 8501
      health    = "/_stcore/health"
      cpu       = "1"
      memory    = "2Gi"
      min       = 1
      max       = 4
      always_on = false
      timeout   = "3600s"
      sticky    = true
      # The backend's own address: it takes calls from the network, and the frontend sends all of its traffic there.
      environment = {
        QSM_API_URL = "https://${var.name}-backend-${data.google_project.this.number}.${var.region}.run.app"
      }
      secrets = {}
    }
  }
}

resource "google_service_account" "tier" {
  for_each = local.tiers

  account_id   = "${var.name}-${each.key}"
  display_name = "${var.name}: ${each.key}"
}

# Addresses at which clients send scans straight to the bucket are signed by IAM in the backend's name, since it holds no
# key. Of no other account may it do so.
resource "google_service_account_iam_member" "sign" {
  service_account_id = google_service_account.tier["backend"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = "serviceAccount:${google_service_account.tier["backend"].email}"
}

resource "google_secret_manager_secret_iam_member" "rate_limit_storage" {
  count = var.rate_limit_storage_secret == "" ? 0 : 1

  secret_id = var.rate_limit_storage_secret
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${google_service_account.tier["backend"].email}"
}

resource "google_cloud_run_v2_service" "tier" {
  for_each = local.tiers

  name                = "${var.name}-${each.key}"
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
  deletion_protection = false

  template {
    service_account  = google_service_account.tier[each.key].email
    timeout          = each.value.timeout
    session_affinity = each.value.sticky

    # A backend holds a few uploads at once, a frontend many visitors.
    max_instance_request_concurrency = each.key == "backend" ? 40 : 200

    scaling {
      min_instance_count = each.value.min
      max_instance_count = each.value.max
    }

    vpc_access {
      egress = each.key == "frontend" ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network_id
        subnetwork = var.subnet_id
      }
    }

    containers {
      image = each.value.image

      ports {
        container_port = each.value.port
      }

      resources {
        limits            = { cpu = each.value.cpu, memory = each.value.memory }
        cpu_idle          = !each.value.always_on
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = 2
        failure_threshold = 60
        http_get {
          path = each.value.health
        }
      }

      liveness_probe {
        period_seconds    = 15
        timeout_seconds   = 5
        failure_threshold = 4
        http_get {
          path = each.value.health
        }
      }

      dynamic "env" {
        for_each = each.value.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = each.value.secrets
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = each.key == "backend" ? ["data"] : []
        content {
          name       = volume_mounts.value
          mount_path = "/data"
        }
      }
    }

    dynamic "volumes" {
      for_each = each.key == "backend" ? ["data"] : []
      content {
        name = volumes.value
        empty_dir {
          medium     = "MEMORY"
          size_limit = "3Gi"
        }
      }
    }
  }

  # Cloud Run reads its secrets when it starts.
  depends_on = [google_secret_manager_secret_iam_member.rate_limit_storage]
}

# The backend's image with another command. A pool does not grow by itself: `worker.instances` says how many there are.
resource "google_cloud_run_v2_worker_pool" "worker" {
  name                = "${var.name}-worker"
  location            = var.region
  launch_stage        = "BETA"
  deletion_protection = false

  scaling {
    scaling_mode          = "MANUAL"
    manual_instance_count = var.worker.instances
  }

  template {
    service_account = google_service_account.tier["backend"].email

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network_id
        subnetwork = var.subnet_id
      }
    }

    containers {
      image   = var.images.backend
      command = ["qsm-ai", "worker"]

      resources {
        limits = { cpu = var.worker.cpu, memory = var.worker.memory }
      }

      dynamic "env" {
        for_each = merge(local.data, local.access, { QSM_WORKERS = "1" })
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name = "PGPASSWORD"
        value_source {
          secret_key_ref {
            secret  = var.password_secret
            version = "latest"
          }
        }
      }

      volume_mounts {
        name       = "data"
        mount_path = "/data"
      }
    }

    volumes {
      name = "data"
      empty_dir {
        medium     = "MEMORY"
        size_limit = "4Gi"
      }
    }
  }
}

# Who gets through the load balancer (ingress above, Cloud Armor below) may call; people sign in at the service itself.
resource "google_cloud_run_v2_service_iam_member" "door" {
  for_each = local.tiers

  name     = google_cloud_run_v2_service.tier[each.key].name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

resource "google_compute_region_network_endpoint_group" "tier" {
  for_each = local.tiers

  name                  = "${var.name}-${each.key}"
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloud_run_v2_service.tier[each.key].name
  }
}

resource "google_compute_security_policy" "door" {
  name = var.name

  # A policy takes ten addresses a rule.
  dynamic "rule" {
    for_each = { for n, part in chunklist(var.allowed_cidrs, 10) : n => part }
    content {
      action   = "allow"
      priority = 1000 + rule.key
      match {
        versioned_expr = "SRC_IPS_V1"
        config {
          src_ip_ranges = rule.value
        }
      }
    }
  }

  rule {
    action      = "deny(403)"
    priority    = 2147483647
    description = "everybody else"
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}

resource "google_compute_backend_service" "tier" {
  for_each = local.tiers

  name                  = "${var.name}-${each.key}"
  protocol              = "HTTPS"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  security_policy       = google_compute_security_policy.door.id

  backend {
    group = google_compute_region_network_endpoint_group.tier[each.key].id
  }

  log_config {
    enable = true
  }
}

# One door: /api/*, its documentation, /healthz and /readyz to the backend, everything else to the frontend.
resource "google_compute_url_map" "this" {
  name            = var.name
  default_service = google_compute_backend_service.tier["frontend"].id

  host_rule {
    hosts        = [var.domain]
    path_matcher = "tiers"
  }

  path_matcher {
    name            = "tiers"
    default_service = google_compute_backend_service.tier["frontend"].id

    path_rule {
      paths   = ["/api/*", "/docs", "/redoc", "/openapi.json", "/healthz", "/readyz"]
      service = google_compute_backend_service.tier["backend"].id
    }
  }
}

resource "google_compute_url_map" "redirect" {
  name = "${var.name}-redirect"

  default_url_redirect {
    https_redirect = true
    strip_query    = false
  }
}

resource "google_compute_managed_ssl_certificate" "this" {
  name = var.name

  managed {
    domains = [var.domain]
  }
}

resource "google_compute_ssl_policy" "this" {
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_target_https_proxy" "this" {
  name             = var.name
  url_map          = google_compute_url_map.this.id
  ssl_certificates = [google_compute_managed_ssl_certificate.this.id]
  ssl_policy       = google_compute_ssl_policy.this.id
}

resource "google_compute_target_http_proxy" "this" {
  name    = var.name
  url_map = google_compute_url_map.redirect.id
}

resource "google_compute_global_address" "this" {
  name = var.name
}

resource "google_compute_global_forwarding_rule" "secure" {
  name                  = "${var.name}-https"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.this.id
}

resource "google_compute_global_forwarding_rule" "plain" {
  name                  = "${var.name}-http"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this.id
  port_range            = "80"
  target                = google_compute_target_http_proxy.this.id
}
