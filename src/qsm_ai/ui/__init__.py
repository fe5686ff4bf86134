"""The frontend: a Streamlit page that talks HTTP to the API and imports nothing else of ours."""
