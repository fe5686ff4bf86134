variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "vpc_cidr" {
  description = "Its address range."
  type        = string
}

variable "public_subnet_ids" {
  description = "Subnets of the load balancer."
  type        = list(string)
}

variable "private_subnet_ids" {
  description = "Subnets of the tasks."
  type        = list(string)
}

variable "domain" {
  description = "Host name of the service."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate for the host name."
  type        = string
}

variable "allowed_cidrs" {
  description = "Networks that may reach the service."
  type        = list(string)
}

variable "images" {
  description = "Images of the two tiers."
  type = object({
    backend  = string
    frontend = string
  })
}

variable "backend" {
  description = "Backend tasks: CPU units, memory in MiB, fewest and most."
  type = object({
    cpu    = number
    memory = number
    min    = number
    max    = number
  })
}

variable "worker" {
  description = "Tasks that compute: CPU units, memory in MiB, fewest and most, on spot capacity or not."
  type = object({
    cpu    = number
    memory = number
    min    = number
    max    = number
    spot   = bool
  })
}

variable "oidc" {
  description = "Whose tokens let programs in, beside API keys; null for nobody's."
  type = object({
    issuer        = string
    audience      = string
    user_role     = string
    email_domains = list(string)
  })
}

variable "log_user_key_secret_arn" {
  description = "Secret with which logs hash users, made in the folder account; null lets each task make its own."
  type        = string
}

variable "rate_limit_storage_secret_arn" {
  description = "Secret with the address of a Redis where backends count requests together; null lets each count alone."
  type        = string
}

variable "triton_address" {
  description = "host:port of Triton's gRPC."
  type        = string
}

variable "bucket" {
  description = "Bucket of uploads and results."
  type        = string
}

variable "bucket_arn" {
  description = "Its ARN."
  type        = string
}

variable "bucket_key_arn" {
  description = "The key that encrypts it."
  type        = string
}

variable "log_bucket" {
  description = "Bucket of access logs."
  type        = string
}

variable "database" {
  description = "Where the database is, and the secret with its password."
  type = object({
    host       = string
    name       = string
    secret_arn = string
    key_arn    = string
  })
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
}

variable "log_key_arn" {
  description = "The key that encrypts log groups."
  type        = string
}
