variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in two zones."
  type        = list(string)
}

variable "client_group_ids" {
  description = "Security groups of who may ask Triton, by tier."
  type        = map(string)
}

variable "admin_cidrs" {
  description = "Networks from which the Kubernetes API may be reached; empty keeps it inside the VPC."
  type        = list(string)
}

variable "log_retention_days" {
  description = "How long the cluster's audit log is kept."
  type        = number
}

variable "kubernetes_version" {
  description = "Version of EKS."
  type        = string
  default     = "1.33"
}

variable "gpu" {
  description = "GPU nodes: instance type, fewest, most and wished number, spot or not."
  type = object({
    instance_type = string
    min           = number
    max           = number
    desired       = number
    spot          = bool
  })
}

variable "grpc_node_port" {
  description = "Port of every node that leads to Triton's gRPC; deploy/kubernetes/overlays/eks-triton names the same."
  type        = number
  default     = 30801
}

variable "log_key_arn" {
  description = "The key that encrypts log groups."
  type        = string
}
