variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "project" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region."
  type        = string
}

variable "domain" {
  description = "Host name of the service."
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

variable "worker" {
  description = "Workers: how many, processors and memory of each."
  type = object({
    instances = number
    cpu       = string
    memory    = string
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

variable "network_id" {
  description = "The network."
  type        = string
}

variable "subnet_id" {
  description = "The subnetwork."
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

variable "database_host" {
  description = "Private address of the database."
  type        = string
}

variable "password_secret" {
  description = "Secret with the database's password."
  type        = string
}

variable "rate_limit_storage_secret" {
  description = "Id of a secret with the address of a Redis where backends count requests together; empty for none."
  type        = string
}
