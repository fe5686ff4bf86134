variable "region" {
  description = "AWS region; it must offer the GPU instances."
  type        = string
  default     = "eu-central-1"
}

variable "environment" {
  description = "Name of this installation, part of every resource's name: letters, digits and hyphens."
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

variable "certificate_arn" {
  description = "ACM certificate for the host name, in the same region."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "This must be the ARN of an ACM certificate."
  }
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
  description = "Networks from which the Kubernetes API may be reached; empty keeps it inside the VPC."
  type        = list(string)
  default     = []
}

variable "images" {
  description = "Images of the two Fargate tiers, best by digest."
  type = object({
    backend  = string
    frontend = string
  })
}

variable "vpc_cidr" {
  description = "Address range of the VPC."
  type        = string
  default     = "10.40.0.0/16"
}

variable "gpu" {
  description = "GPU nodes for Triton: instance type, fewest, most and wished number. min 0 lets it rest at no cost."
  type = object({
    instance_type = optional(string, "g4dn.xlarge")
    min           = optional(number, 1)
    max           = optional(number, 4)
    desired       = optional(number, 1)
    spot          = optional(bool, false)
  })
  default = {}

  validation {
    condition     = var.gpu.min <= var.gpu.desired && var.gpu.desired <= var.gpu.max
    error_message = "min <= desired <= max must hold."
  }
}

variable "backend" {
  description = "Fargate tasks that take scans and show maps: CPU units, memory in MiB, fewest and most tasks."
  type = object({
    cpu    = optional(number, 1024)
    memory = optional(number, 4096)
    min    = optional(number, 1)
    max    = optional(number, 6)
  })
  default = {}
}

variable "worker" {
  description = "Fargate tasks that compute jobs: CPU units, memory in MiB, fewest and most tasks, on spot capacity or not."
  type = object({
    cpu    = optional(number, 4096)
    memory = optional(number, 8192)
    min    = optional(number, 1)
    max    = optional(number, 6)
    spot   = optional(bool, false)
  })
  default = {}

  validation {
    condition     = 1 <= var.worker.min && var.worker.min <= var.worker.max
    error_message = "1 <= min <= max must hold; without a worker nobody computes."
  }
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

variable "log_user_key_secret_arn" {
  description = "Secret with which logs hash users, made in the folder account; null lets each task make its own."
  type        = string
  default     = null
}

variable "rate_limit_storage_secret_arn" {
  description = "Secret with the address of a Redis where backends count requests together; null lets each count alone."
  type        = string
  default     = null
}

variable "waf" {
  description = "A web application firewall in front: on or off, and requests that one address may make in five minutes."
  type = object({
    enabled                = optional(bool, false)
    requests_per_5_minutes = optional(number, 6000)
  })
  default = {}
}

variable "retention_days" {
  description = "After so many days the bucket deletes scans and maps by itself, whatever the backend did."
  type        = number
  default     = 7
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 90
}

variable "database" {
  description = "RDS: instance class, storage in GiB, a standby in another zone, protection against deletion."
  type = object({
    instance_class      = optional(string, "db.t4g.small")
    storage_gb          = optional(number, 20)
    multi_az            = optional(bool, true)
    deletion_protection = optional(bool, true)
  })
  default = {}
}

variable "alarm_email" {
  description = "Who is told about alarms and the budget."
  type        = string
}

variable "monthly_budget_usd" {
  description = "A letter is sent when the month's cost is forecast above this."
  type        = number
  default     = 1500
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete the bucket with what is in it; for trials, never for patients' data."
  type        = bool
  default     = false
}
