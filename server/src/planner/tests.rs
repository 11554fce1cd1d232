//! Scripts for the pipeline.
