"""What others have counted: tables and exports of other tools, entered as calls."""
