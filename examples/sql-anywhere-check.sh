#!/bin/sh
# Judges a copy of a SQL Anywhere database: sql-anywhere-check.sh FOLDER DATABASE
#
# A database that is opened is changed (its log is applied), so a copy of the copy is opened. The connection, with its
# password, is passed in an environment variable, which dbvalid reads as @NAME; nobody else can see it there.
set -eu
folder=$1 database=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$folder"/* "$scratch"
OFFSITE_DBVALID="-c \"DBF=$scratch/$database;UID=$SQLANY_UID;PWD=$SQLANY_PWD\""
export OFFSITE_DBVALID
"$SQLANY17/bin64/dbvalid" @OFFSITE_DBVALID
