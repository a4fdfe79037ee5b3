SELECT lifecycle.difference_of_server()
