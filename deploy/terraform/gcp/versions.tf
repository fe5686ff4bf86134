terraform {
  required_version = ">= 1.7"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.49, < 8.0"
    }
  }

  # Which bucket is told at `terraform init -backend-config=state.config` (README.md). The state holds the database's
  # password: give the bucket to those only who may read it.
  backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region

  default_labels = {
    project     = "qsm-ai"
    environment = var.environment
    managed-by  = "terraform"
  }
}
