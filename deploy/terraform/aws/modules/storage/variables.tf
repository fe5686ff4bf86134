variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "retention_days" {
  description = "After so many days objects are deleted."
  type        = number
}

variable "force_destroy" {
  description = "Delete the buckets with what is in them."
  type        = bool
}
