terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 6.0"
    }
  }

  # Where the state lies is told at `terraform init -backend-config=state.config` (README.md), so that this tree names
  # nobody's bucket. It holds no password: the database's is made and kept by Secrets Manager.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project     = "qsm-ai"
      Environment = var.environment
      ManagedBy   = "terraform"
    }
  }
}
