"""What a person does with runs that there are: find, export, compare, report, predict, export the model."""
