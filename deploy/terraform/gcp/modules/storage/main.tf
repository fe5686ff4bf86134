# Uploads and results: never public, deleted by age, no old versions, so that a deleted scan leaves no byte behind.

resource "google_storage_bucket" "scans" {
  name                        = "${var.project}-${var.name}-scans"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = false
  }

  # Kept for a week otherwise.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    condition {
      age = var.retention_days
    }
    action {
      type = "Delete"
    }
  }

  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }
}

resource "google_storage_bucket_iam_member" "backend" {
  bucket = google_storage_bucket.scans.name
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${var.service_account}"
}
