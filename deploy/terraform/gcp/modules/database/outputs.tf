output "host" {
  description = "Its private address."
  value       = google_sql_database_instance.this.private_ip_address
}

output "password_secret" {
  description = "Secret with the password."
  value       = google_secret_manager_secret.password.secret_id
}
