"""What people look at: tables, figures, image sheets."""
