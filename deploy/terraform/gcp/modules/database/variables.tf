variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "region" {
  description = "Region."
  type        = string
}

variable "network_id" {
  description = "Network in which it has its private address."
  type        = string
}

variable "peering" {
  description = "The peering that must be there first."
  type        = string
}

variable "tier" {
  description = "Machine."
  type        = string
}

variable "deletion_protection" {
  description = "Refuse to be deleted."
  type        = bool
}

variable "reader" {
  description = "Service account that may read the password."
  type        = string
}
