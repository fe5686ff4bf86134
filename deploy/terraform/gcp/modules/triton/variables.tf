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

variable "network_id" {
  description = "The network."
  type        = string
}

variable "subnet_id" {
  description = "The subnetwork."
  type        = string
}

variable "admin_cidrs" {
  description = "Networks from which the Kubernetes API may be reached."
  type        = list(string)
}

variable "gpu" {
  description = "GPU nodes."
  type = object({
    machine_type = string
    accelerator  = string
    zone         = string
    min          = number
    max          = number
    spot         = bool
  })
}

variable "deletion_protection" {
  description = "Refuse to be deleted."
  type        = bool
}
