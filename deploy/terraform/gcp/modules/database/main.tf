# PostgreSQL for jobs: private address, TLS only, a standby in another zone.

resource "random_password" "this" {
  length  = 40
  special = false

  # Cloud SQL belongs to the peered network; naming it here makes everything after it wait.
  keepers = { peering = var.peering }
}

resource "google_sql_database_instance" "this" {
  name                = var.name
  region              = var.region
  database_version    = "POSTGRES_17"
  deletion_protection = var.deletion_protection

  settings {
    tier              = var.tier
    edition           = "ENTERPRISE"
    availability_type = "REGIONAL"
    disk_type         = "PD_SSD"
    disk_autoresize   = true

    deletion_protection_enabled = var.deletion_protection

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network_id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
    }

    database_flags {
      name  = "log_min_duration_statement"
      value = "1000"
    }

    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }

    database_flags {
      name  = "log_connections"
      value = "on"
    }

    database_flags {
      name  = "log_disconnections"
      value = "on"
    }

    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
  }

  depends_on = [random_password.this]
}

resource "google_sql_database" "this" {
  name     = "qsm"
  instance = google_sql_database_instance.this.name
}

resource "google_sql_user" "this" {
  name     = "qsm"
  instance = google_sql_database_instance.this.name
  password = random_password.this.result
}

resource "google_secret_manager_secret" "password" {
  secret_id = "${var.name}-database-password"

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "password" {
  secret      = google_secret_manager_secret.password.id
  secret_data = random_password.this.result
}

resource "google_secret_manager_secret_iam_member" "backend" {
  secret_id = google_secret_manager_secret.password.id
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${var.reader}"
}
