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

variable "retention_days" {
  description = "After so many days objects are deleted."
  type        = number
}

variable "service_account" {
  description = "Who may read and write objects."
  type        = string
}
