variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region; it must offer the GPU."
  type        = string
  default     = "europe-west3"
}

variable "environment" {
  description = "Name of this installation, part of every resource's name."
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,14}[a-z0-9]$", var.environment))
    error_message = "Use 3 to 16 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "domain" {
  description = "Host name under which people reach the service."
  type        = string
}

variable "allowed_cidrs" {
  description = "Networks that may reach the service, such as a hospital's. There is no default: open it knowingly."
  type        = list(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for c in var.allowed_cidrs : can(cidrhost(c, 0))])
    error_message = "Name at least one network in CIDR notation."
  }
}

variable "cluster_admin_cidrs" {
  description = "Networks from which the Kubernetes API may be reached."
  type        = list(string)
}

variable "images" {
  description = "Images of the two Cloud Run tiers, best by digest."
  type = object({
    backend  = string
    frontend = string
  })
}

variable "gpu" {
  description = "GPU nodes for Triton; min 0 lets them rest at no cost."
  type = object({
    machine_type = optional(string, "g2-standard-8")
    accelerator  = optional(string, "nvidia-l4")
    zone         = optional(string, "europe-west3-b")
    min          = optional(number, 1)
    max          = optional(number, 4)
    spot         = optional(bool, false)
  })
  default = {}
}

variable "worker" {
  description = "Workers that compute jobs: how many, processors and memory of each."
  type = object({
    instances = optional(number, 1)
    cpu       = optional(string, "4")
    memory    = optional(string, "16Gi")
  })
  default = {}
}

variable "oidc" {
  description = "Whose tokens let programs in, beside API keys: issuer and audience; the role or the e-mail domains let in."
  type = object({
    issuer        = string
    audience      = string
    user_role     = optional(string, "")
    email_domains = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.oidc == null ? true : startswith(var.oidc.issuer, "https://")
    error_message = "The issuer is a URL that begins with https://."
  }
}

variable "database_tier" {
  description = "Machine of Cloud SQL."
  type        = string
  default     = "db-custom-1-3840"
}

variable "rate_limit_storage_secret" {
  description = "Id of a secret with the address of a Redis where backends count requests together; empty for none."
  type        = string
  default     = ""
}

variable "deletion_protection" {
  description = "Refuse to delete database and cluster."
  type        = bool
  default     = true
}

variable "retention_days" {
  description = "After so many days the bucket deletes scans and maps by itself, whatever the backend did."
  type        = number
  default     = 7
}

variable "alarm_email" {
  description = "Who is told about alarms and the budget."
  type        = string
}

variable "billing_account" {
  description = "Billing account for the budget; empty for none."
  type        = string
  default     = ""
}

variable "monthly_budget_usd" {
  description = "A letter is sent when the month's cost is forecast above this."
  type        = number
  default     = 1500
}
