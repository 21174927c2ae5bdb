# Who may call, as a user would declare it: a user with a key, a group, policies of both, and providers.
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
provider "aws" {
  region = "us-east-1"
  skip_metadata_api_check = true
  default_tags { tags = { made_by = "terraform" } }
}
variable "path" {
  type = string
  default = "/people/"
}
variable "thumbprint" {
  type = string
  default = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
}
variable "key_status" {
  type = string
  default = "Active"
}
data "aws_iam_policy_document" "read" {
  statement {
    actions = ["ecs:Describe*"]
    resources = ["*"]
  }
}
resource "aws_iam_policy" "read" {
  name = "tf-read"
  policy = data.aws_iam_policy_document.read.json
}
resource "aws_iam_user" "u" {
  name = "tf-user"
  path = var.path
  permissions_boundary = aws_iam_policy.read.arn
  # Removes keys, certificates, MFA devices and a login profile first, whatever there is.
  force_destroy = true
}
resource "aws_iam_service_linked_role" "s" {
  aws_service_name = "autoscaling.amazonaws.com"
  tags = { path = var.path }
}
resource "aws_iam_access_key" "k" {
  user = aws_iam_user.u.name
  status = var.key_status
}
resource "aws_iam_user_policy" "inline" {
  name = "inline"
  user = aws_iam_user.u.name
  policy = data.aws_iam_policy_document.read.json
}
resource "aws_iam_group" "g" {
  name = "tf-group"
  path = var.path
}
resource "aws_iam_group_policy_attachment" "read" {
  group = aws_iam_group.g.name
  policy_arn = aws_iam_policy.read.arn
}
resource "aws_iam_group_membership" "m" {
  name = "members"
  group = aws_iam_group.g.name
  users = [aws_iam_user.u.name]
}
resource "aws_iam_openid_connect_provider" "p" {
  url = "https://token.example.com/tf"
  client_id_list = ["sts.amazonaws.com"]
  thumbprint_list = [var.thumbprint]
}
resource "aws_iam_account_password_policy" "p" {
  minimum_password_length = 12
  require_symbols = true
}
resource "aws_iam_account_alias" "a" {
  account_alias = "tf-alias"
}
output "key" {
  value = aws_iam_access_key.k.id
}
output "secret" {
  value = aws_iam_access_key.k.secret
  sensitive = true
}
