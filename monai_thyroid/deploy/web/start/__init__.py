"""The script that Streamlit runs, in a folder of its own, because that folder becomes one of modules by their names."""
