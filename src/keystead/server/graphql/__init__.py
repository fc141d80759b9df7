"""The GraphQL door: mission of documented clients, bounded before anything is looked at."""
